"""Complete answers, kept under everything that can change them, and replayed event by event.

Two levels: this process's memory for a few seconds, then the store that all replicas share. What is kept: the events of
a whole final with its usage; never an error, a cut answer or a draft.

An entry in the store: one byte for the form (1 plain, 2 deflated), then MessagePack: [stored at, time to live, events].
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import groupby

import msgspec
import structlog

from gateway.cache.key import cache_key
from gateway.cache.rule import CacheRule
from gateway.errors import StoreUnavailable
from gateway.inference.events import Event, Finished, Relayed, TextDelta, UsageReported, WholeAnswer
from gateway.inference.request import InferenceRequest
from gateway.store.client import PREFIX, Store

__all__ = ["CacheRule", "PromptCache"]

_PLAIN, _DEFLATED = b"\x01", b"\x02"
_DEFLATE_FROM = 4_096
"""Bytes; below, deflating costs more than it saves."""
_IN_THREAD_FROM = 131_072
"""Bytes; more than this takes milliseconds to deflate, in which no other request would be served."""
_LOCAL_BYTES = 16_777_216
_LOCAL_TTL_S = 3.0
"""So long may this process give an answer that another one has replaced."""

_Kept = TextDelta | Relayed | Finished | UsageReported | WholeAnswer


class _Entry(msgspec.Struct, array_like=True, frozen=True):
    stored_at: float
    """Unix time, in seconds."""
    ttl_s: float
    events: list[_Kept]

    def age_s(self) -> float:
        return max(0.0, time.time() - self.stored_at)


class Counts(msgspec.Struct):
    """What happened to look-ups and answers since the start."""

    local_hits: int = 0
    store_hits: int = 0
    misses: int = 0
    unreadable: int = 0
    """Entries that were no entries (also misses), and answers that cannot be made one."""
    store_failures: int = 0
    """Reads (also misses) and writes that the store did not do."""
    stored: int = 0
    too_large: int = 0
    incomplete: int = 0


class PromptCache:
    """One for all requests of a gateway process.

    Args:
        store: where replicas share their answers.
        secret: of the keys; replicas that have the same one find each other's answers.
        max_bytes_per_answer: a larger answer is not kept.
    """

    def __init__(self, store: Store, *, secret: bytes, max_bytes_per_answer: int = 1_000_000) -> None:
        self._store = store
        self._secret = secret
        self.most_bytes = max_bytes_per_answer
        self.counts = Counts()
        self._local = _Local()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(_Entry)

    def key(
        self,
        *,
        request: InferenceRequest,
        tenant: str,
        deployment_ids: tuple[str, ...],
        policy_part: str,
        extra: bytes = b"",
    ) -> str:
        """The key of a request's answer.

        Args:
            request: every field of it counts, but for those in `key.LEFT_OUT`.
            tenant: whose answer; empty: it may be given to any tenant, as the route says.
            deployment_ids: what may answer, in a stable order.
            policy_part: what of the policy changes the answer.
            extra: what else does, such as retrieved passages.
        """
        return cache_key(
            self._secret,
            request=request,
            tenant=tenant,
            deployment_ids=deployment_ids,
            policy_part=policy_part,
            extra=extra,
        )

    async def get(self, key: str) -> tuple[list[Event], float] | None:
        """The events of the answer and its age in seconds; None: there is none, or the store cannot say."""
        entry = self._local.get(key)
        if entry is not None:
            self.counts.local_hits += 1
            return list(entry.events), entry.age_s()
        try:
            data = await self._store.get(_name(key))
        except StoreUnavailable:
            self.counts.store_failures += 1
            data = None
        entry = await self._read(data) if data is not None else None
        if data is None or entry is None:
            self.counts.misses += 1
            return None
        self.counts.store_hits += 1
        self._local.put(key, entry, len(data))
        return list(entry.events), entry.age_s()

    async def put(self, key: str, events: Iterable[Event], rule: CacheRule) -> None:
        """Keep a complete answer as long as the rule says; one that is not complete is left out."""
        kept = _merged(events)
        if not _is_complete(kept):
            self.counts.incomplete += 1
            return
        entry = _Entry(time.time(), rule.ttl_s, kept)
        try:
            plain = self._encoder.encode(entry)
        except ValueError as error:  # text that is no Unicode
            self.counts.unreadable += 1
            structlog.get_logger().warning("answer_not_cached", reason=str(error))
            return
        if len(plain) > self.most_bytes:
            self.counts.too_large += 1
            return
        data = await _in_thread_if_large(_deflate, plain)
        self._local.put(key, entry, len(plain))
        try:
            await self._store.set(_name(key), data, ttl_s=rule.ttl_s)
        except StoreUnavailable:
            self.counts.store_failures += 1
        else:
            self.counts.stored += 1

    async def _read(self, data: bytes) -> _Entry | None:
        """An entry that can be used: in a form that this version knows, and not over."""
        try:
            plain = await _in_thread_if_large(self._inflate, data)
            entry = self._decoder.decode(plain)
        except (ValueError, zlib.error) as error:  # msgspec's errors and bad UTF-8 are ValueErrors
            self.counts.unreadable += 1
            structlog.get_logger().warning("cache_entry_unreadable", reason=str(error))
            return None
        return entry if entry.age_s() < entry.ttl_s else None

    def _inflate(self, data: bytes) -> bytes:
        """Raises ValueError or zlib.error. What is larger than an answer may be, is none of ours."""
        form, body = data[:1], data[1:]
        if form == _PLAIN:
            return body
        if form != _DEFLATED:
            raise ValueError(f"unknown form {form!r}")
        inflater = zlib.decompressobj()
        plain = inflater.decompress(body, self.most_bytes)
        if not inflater.eof:
            raise ValueError(f"cut, or larger than {self.most_bytes} bytes")
        return plain


class _Local:
    """The first level: entries by use, the least recently used dropped beyond so many bytes."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[float, int, _Entry]] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> _Entry | None:
        found = self._entries.get(key)
        if found is None:
            return None
        until, _, entry = found
        if time.monotonic() >= until:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: _Entry, size: int) -> None:
        lives_s = min(_LOCAL_TTL_S, entry.ttl_s - entry.age_s())
        self._drop(key)
        if lives_s <= 0 or size > _LOCAL_BYTES:
            return
        self._entries[key] = (time.monotonic() + lives_s, size, entry)
        self._bytes += size
        while self._bytes > _LOCAL_BYTES:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= found[1]


def _name(key: str) -> str:
    return f"{PREFIX}cache:{key}"


def _deflate(plain: bytes) -> bytes:
    if len(plain) >= _DEFLATE_FROM:
        deflated = zlib.compress(plain, 1)
        if len(deflated) < len(plain):
            return _DEFLATED + deflated
    return _PLAIN + plain


def _is_complete(kept: list[_Kept]) -> bool:
    """It says how it ended: a cut answer does not."""
    return any(
        isinstance(event, Finished | WholeAnswer) or (isinstance(event, Relayed) and event.finish_reason is not None)
        for event in kept
    )


def _merged(events: Iterable[Event]) -> list[_Kept]:
    """The final's events, with what came in many reads put together: a replay needs one write."""
    kept: list[_Kept] = []
    for kind, group in groupby((event for event in events if isinstance(event, _Kept)), key=type):
        if kind is Relayed:
            kept.append(_one_relayed([event for event in group if isinstance(event, Relayed)]))
        elif kind is TextDelta:
            kept.append(TextDelta("".join(event.text for event in group if isinstance(event, TextDelta))))
        else:
            kept += group
    return kept


def _one_relayed(run: list[Relayed]) -> Relayed:
    reasons = [event.finish_reason for event in run if event.finish_reason is not None]
    return Relayed(
        data=b"".join(event.data for event in run),
        text="".join(event.text for event in run),
        content=any(event.content for event in run),
        content_bytes=sum(event.content_bytes for event in run),
        finish_reason=reasons[0] if reasons else None,
    )


async def _in_thread_if_large(work: Callable[[bytes], bytes], data: bytes) -> bytes:
    return work(data) if len(data) < _IN_THREAD_FROM else await asyncio.to_thread(work, data)
