"""Complete answers, kept under everything that can change them, and replayed event by event.

Two levels: this process's memory for a few seconds, then the store that all replicas share. What is kept: the events of
a whole final with its usage; never an error, a cut answer or a draft. An answer serves plain and streamed requests
alike; where one form cannot say all that the other says, it is kept for its own form only.

Writing is not part of answering: what is to be kept goes into memory at once, and into the store from a bounded queue
that is emptied when the gateway ends.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import zlib
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
import structlog

from gateway.cache.entry import Entry, EntryCodec, is_complete, merged, size_of
from gateway.cache.forms import in_form
from gateway.cache.key import cache_key
from gateway.cache.local import Found, Local
from gateway.cache.rule import CacheRule
from gateway.cache.sealing import Sealer
from gateway.errors import StoreUnavailable
from gateway.inference.events import Event
from gateway.inference.request import InferenceRequest, Surface
from gateway.store.client import PREFIX, Store
from gateway.store.script import Script

__all__ = ["CacheRule", "Found", "LookedUp", "PromptCache"]

LEASE_MS = 3_000
"""How long nobody else fetches an answer whose fetcher shows no sign of life."""
_IN_THREAD_FROM = 131_072
"""Bytes; more than this takes milliseconds to deflate, in which no other request would be served."""
_MOST_WAITING = 256
_MOST_WAITING_BYTES = 67_108_864
_FLUSH_S = 2.0
"""Longest wait at the end for answers that are not in the store yet."""


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
    dropped: int = 0
    """Answers that were not written because too many others waited for it."""


def _nobody(_what: str) -> None:
    return


class LookedUp(NamedTuple):
    """What a look-up said: an answer; else the token of whoever fetches it, empty when nobody can say."""

    found: Found | None
    fetcher: str = ""


class _Write(NamedTuple):
    key: str
    stream: bool
    entry: Entry
    size: int
    done: asyncio.Future[None]


class PromptCache:
    """One for all requests of a gateway process; an async context manager, which writes what waits at its end.

    Args:
        store: where replicas share their answers.
        secret: of the keys, 64 bytes at most; replicas that have the same one find each other's answers.
        max_bytes_per_answer: a larger answer is not kept.
        sealer: encrypts what goes to the store; None: it is readable there.
        on_count: called with the name of each count that goes up.
    """

    def __init__(
        self,
        store: Store,
        *,
        secret: bytes,
        max_bytes_per_answer: int = 1_000_000,
        sealer: Sealer | None = None,
        on_count: Callable[[str], None] = _nobody,
    ) -> None:
        self.store = store
        self.codec = EntryCodec(max_bytes_per_answer, sealer)
        self.most_bytes = max_bytes_per_answer
        self.counts = Counts()
        self.process = secrets.token_hex(8)
        """Begins every token of this process."""
        self.secret = secret
        self._on_count = on_count
        self._local = Local()
        self._lookup = Script.read("gateway.cache", "lookup", "lookup.lua")
        self._waiting: asyncio.Queue[_Write] = asyncio.Queue(_MOST_WAITING)
        self._waiting_bytes = 0
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._write_all(), name="cache writer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self.flush()
        except TimeoutError:
            structlog.get_logger().warning(
                "answers_not_cached", count=self._waiting.qsize(), reason="the store is slow"
            )
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait((self._writer,))

    async def flush(self) -> None:
        """Wait until all that was put is in the store, or has failed."""
        await self._waiting.join()

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
            self.secret,
            request=request,
            tenant=tenant,
            deployment_ids=deployment_ids,
            policy_part=policy_part,
            extra=extra,
        )

    # --- reading ----------------------------------------------------------------------------------------------

    def get_local(self, key: str, *, stream: bool) -> Found | None:
        """The answer in this form, if this process has it in memory."""
        found = self._local.get(_form(key, stream=stream))
        if found is None:
            other = self._local.get(_form(key, stream=not stream))
            events = None if other is None else in_form(other.entry, stream=stream)
            if other is None or events is None:
                return None
            found = Found(other.entry, events)
            self._local.put(_form(key, stream=stream), found, size_of(other.entry.events))
        self._count("local_hits")
        return found

    async def get(self, key: str, *, stream: bool) -> Found | None:
        """The answer in the form asked for; None: there is none, or the store cannot say."""
        return self.get_local(key, stream=stream) or (await self.look_up(key, stream=stream)).found

    async def look_up(self, key: str, *, stream: bool, token: str = "") -> LookedUp:
        """Ask the store. With a token: when there is no answer, and nobody fetches it, its owner does from now on."""
        names = (name_of(key), _form(name_of(key), stream=stream), lease_of(key, stream=stream))
        try:
            both, one, fetcher = await self.store.script(self._lookup, names, (token, LEASE_MS if token else 0))
        except StoreUnavailable:
            self._count("store_failures")
            self._count("misses")
            return LookedUp(None)
        kept = [
            (found, len(data))
            for name, data in zip(names, (both, one), strict=False)
            if data is not None and (found := await self._read(data, name, stream=stream)) is not None
        ]
        if kept:
            found, size = max(kept, key=lambda answer: answer[0].entry.stored_at)
            self._count("store_hits")
            self._local.put(_form(key, stream=stream), found, size)
            return LookedUp(found)
        self._count("misses")
        return LookedUp(None, fetcher.decode() if isinstance(fetcher, bytes) else "")

    async def _read(self, data: bytes, name: str, *, stream: bool) -> Found | None:
        """An entry that can be used: in a shape that this version knows, not over, and in the form asked for."""
        try:
            if len(data) < _IN_THREAD_FROM:
                entry = self.codec.decode(data, name)
            else:
                entry = await asyncio.to_thread(self.codec.decode, data, name)
        except (ValueError, zlib.error) as error:  # msgspec's errors and bad UTF-8 are ValueErrors
            self._count("unreadable")
            structlog.get_logger().warning("cache_entry_unreadable", reason=str(error))
            return None
        if entry.left_s() <= 0:
            return None
        events = in_form(entry, stream=stream)
        return None if events is None else Found(entry, events)

    # --- writing ----------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        events: Iterable[Event],
        rule: CacheRule,
        *,
        stream: bool,
        surface: Surface = "chat",
        cost_nanousd: int = 0,
    ) -> asyncio.Future[None]:
        """Keep a complete answer as long as the rule says, replacing an older one; one that is cut is left out.

        Returns at once; the future is done when the answer is in the store, or will never be.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        kept = merged(events)
        size = size_of(kept)
        if not is_complete(kept) or size > self.most_bytes:
            self._count("too_large" if is_complete(kept) else "incomplete")
            done.set_result(None)
            return done
        entry = Entry(time.time(), rule.ttl_s, rule.stale_s, cost_nanousd, surface, kept)
        self._local.put(_form(key, stream=stream), Found(entry, list(kept)), size)
        self._local.drop(_form(key, stream=not stream))
        if self._waiting.full() or self._waiting_bytes + size > _MOST_WAITING_BYTES:
            self._count("dropped")
            done.set_result(None)
            return done
        self._waiting_bytes += size
        self._waiting.put_nowait(_Write(key, stream, entry, size, done))
        return done

    async def _write_all(self) -> None:
        while True:
            write = await self._waiting.get()
            try:
                await self._write(write)
            finally:
                self._waiting_bytes -= write.size
                if not write.done.done():
                    write.done.set_result(None)
                self._waiting.task_done()

    async def _write(self, write: _Write) -> None:
        try:
            if write.size < _IN_THREAD_FROM:
                name, data = self._encoded(write)
            else:
                name, data = await asyncio.to_thread(self._encoded, write)
            if data is None:
                self._count("too_large")
                return
            await self.store.set(name, data, ttl_s=write.entry.left_s())
        except StoreUnavailable:
            self._count("store_failures")
        except ValueError as error:  # text that is no Unicode
            self._count("unreadable")
            structlog.get_logger().warning("answer_not_cached", reason=str(error))
        else:
            self._count("stored")

    def _encoded(self, write: _Write) -> tuple[str, bytes | None]:
        """Under which name the answer is kept, and its bytes."""
        serves_both = in_form(write.entry, stream=not write.stream) is not None
        name = name_of(write.key) if serves_both else _form(name_of(write.key), stream=write.stream)
        return name, self.codec.encode(write.entry, name)

    def _count(self, what: str) -> None:
        setattr(self.counts, what, getattr(self.counts, what) + 1)
        self._on_count(what)


def name_of(key: str) -> str:
    """Where the store has the answer that serves both forms. The braces keep all names of a key in one Cluster slot."""
    return f"{PREFIX}cache:{{{key}}}"


def lease_of(key: str, *, stream: bool) -> str:
    """Where the store says who fetches the answer in this form."""
    return _form(name_of(key), stream=stream) + ":lease"


def _form(name: str, *, stream: bool) -> str:
    return name + (":stream" if stream else ":whole")
