"""Requests that come again, byte for byte, and hit the prompt cache again: answered without going all the way.

What follows from a request's bytes and the policy alone (who asks, the decoded body, what the classifier found, where
the answer is kept, the bytes of the response) is remembered with the first hit. What does not is asked each time: the
decision is made anew from the facts of this moment, and must be the same; the cache must still give the very answer.
Anything else goes the long way. The log, the metrics and the headers are those of any other hit; but that nothing was
classified, for nothing was.

The key is every byte that the client sent and where it came from, its API key included: nobody is faster for what
somebody else asked. So a connection can ask here before anything of a request is parsed (`connections`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from email.utils import formatdate
from typing import NamedTuple

from gateway.inference.events import Relayed, UsageReported, WholeAnswer
from gateway.pipeline import Exchange, Repeatable
from gateway.services import Services
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_log import Form

_MOST_BYTES = 16_777_216
_MOST_ENTRY_BYTES = 262_144
LONGEST = 20_480
"""Bytes of a request, head and body; a longer one seldom comes twice, and hashing it costs."""
SERVER = "firstdraft"
"""What answers call their server."""
HEAD_END = b"\r\n\r\n"
_OWN_BYTES = 4_096
"""About what an entry takes beside its request and its answer."""


class Said(NamedTuple):
    """All that a client sent, from the first byte of the request to its last, and from where."""

    peer: str
    request: bytes

    @property
    def head(self) -> Said:
        """The same without the body."""
        return Said(self.peer, self.request[: self.request.find(HEAD_END) + len(HEAD_END)])


class _Known(NamedTuple):
    repeatable: Repeatable
    record: RequestRecord
    """Of the next such hit, but for its id and its times."""
    line: Form
    """In the log."""
    head: bytes
    """Status and headers, but for those that differ from response to response."""
    id_headers: tuple[bytes, ...]
    body: bytes
    size: int


class Shortcut:
    """The hits of a worker that may come again, the least recently used forgotten beyond a number of bytes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: OrderedDict[Said, _Known] = OrderedDict()
        self._heads: Counter[Said] = Counter()
        self._bytes = 0
        self._second = 0
        self._date = b""

    def remember(
        self, said: Said, exchange: Exchange, body: bytes, headers: Mapping[str, str], id_headers: tuple[str, ...]
    ) -> None:
        """A request was answered from the cache with this body under these headers."""
        repeatable = exchange.repeatable
        size = len(said.request) + len(body) + _OWN_BYTES
        if repeatable is None or size > _MOST_ENTRY_BYTES:
            return
        self._forget(said)
        differ = {*id_headers, "age", "date", "content-length"}
        fixed = {name: value for name, value in headers.items() if name.lower() not in differ}
        fixed |= {"Content-Length": str(len(body)), "Server": SERVER}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fixed.items())
        record = exchange.record.copy()
        record.status, record.classify_s, record.final_ttft_s, record.e2e_s = 200, None, 0.0, 0.0
        self._known[said] = _Known(
            repeatable=repeatable,
            record=record,
            line=Form(record),
            head=f"HTTP/1.1 200 OK\r\n{lines}".encode(),
            id_headers=tuple(f"{name}: ".encode() for name in id_headers),
            body=body,
            size=size,
        )
        self._heads[said.head] += 1
        self._bytes += size
        while self._bytes > _MOST_BYTES:
            self._forget(next(iter(self._known)))

    def begins(self, said: Said) -> bool:
        """Whether this is the head of a request whose body may follow."""
        return said in self._heads

    def answer(self, said: Said) -> bytes | None:
        """The response, if everything that it depends on is as it was; None: go the long way."""
        known, services = self._known.get(said), self._services
        if known is None or services.draining:
            return None
        started = asyncio.get_running_loop().time()
        repeatable, now = known.repeatable, time.time()
        until = repeatable.exchange.identity.until
        is_over = until is not None and now >= until
        is_as_it_was = repeatable.exchange.policy is services.policy.current and not is_over
        if not is_as_it_was or not services.pipeline.holds(repeatable):
            self._forget(said)
            return None
        self._known.move_to_end(said)
        record = known.record.copy()
        record.request_id = f"req-{os.urandom(12).hex()}"
        record.final_ttft_s = record.e2e_s = asyncio.get_running_loop().time() - started
        services.finish_at_once(record, known.line)
        request_id = record.request_id.encode()
        ids = b"".join([b"%b%b\r\n" % (name, request_id) for name in known.id_headers])
        last = (int(repeatable.found.age_s), self._date_at(int(now)), known.body)
        return known.head + ids + b"age: %d\r\nDate: %b\r\n\r\n%b" % last

    def _date_at(self, second: int) -> bytes:
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True).encode()
        return self._date

    def _forget(self, said: Said) -> None:
        known = self._known.pop(said, None)
        if known is None:
            return
        self._bytes -= known.size
        head = said.head
        self._heads[head] -= 1
        if not self._heads[head]:
            del self._heads[head]


def fixed_bytes(exchange: Exchange) -> bool:
    """The answer's bytes are the backend's own: nothing in them is this response's (an id, a time)."""
    repeatable = exchange.repeatable
    return repeatable is not None and all(
        isinstance(event, WholeAnswer | Relayed) or (isinstance(event, UsageReported) and bool(event.data))
        for event in repeatable.found.events
    )
