"""Requests that come again, byte for byte, and hit the prompt cache again: answered without going all the way.

What follows from a request's bytes and the policy alone (who asks, the decoded body, what the classifier found, where
the answer is kept, the bytes of the response) is remembered with the first hit. What does not is asked each time: the
decision is made anew from the facts of this moment, and must be the same; the cache must still give the very answer.
Anything else goes the long way. The log, the metrics and the headers are those of any other hit.

The key is everything that the client sent and where it came from, its API key included: nobody is faster for what
somebody else asked.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from typing import NamedTuple

from aiohttp import web

from gateway.inference.events import Relayed, UsageReported, WholeAnswer
from gateway.pipeline import Exchange, Repeatable
from gateway.services import Services

_MOST_BYTES = 16_777_216
_MOST_ENTRY_BYTES = 262_144
LONGEST_BODY = 16_384
"""Bytes; a longer one seldom comes twice, and hashing it costs."""
_OWN_BYTES = 4_096
"""About what an entry takes beside its request and its answer."""


class Asked(NamedTuple):
    """All that a client sent, and from where."""

    path: str
    remote: str | None
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class _Known(NamedTuple):
    repeatable: Repeatable
    body: bytes
    headers: dict[str, str]
    id_headers: tuple[str, ...]
    size: int


class Shortcut:
    """The hits of a worker that may come again, the least recently used forgotten beyond a number of bytes."""

    def __init__(self) -> None:
        self._known: OrderedDict[Asked, _Known] = OrderedDict()
        self._bytes = 0

    def remember(
        self, asked: Asked, exchange: Exchange, body: bytes, headers: dict[str, str], id_headers: tuple[str, ...]
    ) -> None:
        """A request was answered from the cache with this body."""
        repeatable = exchange.repeatable
        size = len(asked.body) + len(body) + _OWN_BYTES
        if repeatable is None or size > _MOST_ENTRY_BYTES:
            return
        self._forget(asked)
        headers = {name: value for name, value in headers.items() if name not in id_headers and name != "age"}
        self._known[asked] = _Known(repeatable, body, headers, id_headers, size)
        self._bytes += size
        while self._bytes > _MOST_BYTES:
            self._forget(next(iter(self._known)))

    def answer(self, asked: Asked, services: Services) -> web.Response | None:
        """The response, if everything that it depends on is as it was; None: go the long way."""
        known = self._known.get(asked)
        if known is None or services.draining:
            return None
        started = asyncio.get_running_loop().time()
        repeatable = known.repeatable
        until = repeatable.exchange.identity.until
        if until is not None and time.time() >= until:
            self._forget(asked)
            return None
        if repeatable.exchange.policy is not services.policy.current or not services.pipeline.holds(repeatable):
            self._forget(asked)
            return None
        self._known.move_to_end(asked)
        record = repeatable.exchange.record.copy()
        record.request_id = f"req-{os.urandom(12).hex()}"
        headers = dict.fromkeys(known.id_headers, record.request_id) | known.headers
        headers["age"] = str(int(repeatable.found.age_s))
        record.status = 200
        record.final_ttft_s = record.e2e_s = asyncio.get_running_loop().time() - started
        services.metrics.begin()
        services.finish(record)
        return web.Response(body=known.body, headers=headers)

    def _forget(self, asked: Asked) -> None:
        known = self._known.pop(asked, None)
        if known is not None:
            self._bytes -= known.size


def fixed_bytes(exchange: Exchange) -> bool:
    """The answer's bytes are the backend's own: nothing in them is this response's (an id, a time)."""
    repeatable = exchange.repeatable
    return repeatable is not None and all(
        isinstance(event, WholeAnswer | Relayed) or (isinstance(event, UsageReported) and bool(event.data))
        for event in repeatable.found.events
    )
