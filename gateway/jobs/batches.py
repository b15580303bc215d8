"""What the store has of a batch: what it is, whose turn each of its pieces is, and what came of each line.

    validating ──the first piece is taken──▶ in_progress ──all pieces are done──▶ completed
                          ├──its client cancels──▶ cancelling ──what runs is ended──▶ cancelled
                          ├──its time is over; lines that are left get the error batch_expired──▶ expired
                          └──its input file is gone──▶ failed

A piece has a lease: its worker renews it, and one that is gone loses it. What came of a line is noted once, under its
number: the first to say it is heard. Results and errors are read from these notes, as files.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import msgspec

from gateway.errors import InvalidRequest, StoreUnavailable
from gateway.jobs.asked import Who
from gateway.jobs.files import FileMeta, Files
from gateway.jobs.queue import Queue
from gateway.store.client import PREFIX, Store
from gateway.store.script import Script
from gateway.wire.openai_files import BatchObject, BatchRequest, RequestCounts, times_of, window_s

MOST_UNFINISHED = 100
"""Batches of one tenant that are not over."""
TICKETS = 4
"""Pieces of one batch that are worked on at once."""
_KEPT_S = 7 * 86_400
"""How long a batch and its results are kept, in seconds, after its time is over."""
_MOST_LISTED = 10_000
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})

Mode = Literal["open", "cancelling", "ending", "over", "gone", "lost"]
How = Literal["completed", "failed", "expired"]
_pack = msgspec.msgpack.Encoder().encode


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch is; it never changes."""

    id: str
    who: Who
    endpoint: str
    input_file_id: str
    window: str
    metadata: dict[str, str] | None
    created: int
    ends: int
    """Unix time, in seconds, at which its time is over."""
    pieces: list[int]
    """Lines of each piece of its input file."""

    @property
    def lines(self) -> int:
        return sum(self.pieces)

    def first_of(self, piece: int) -> int:
        """The number of a piece's first line; the first of all is 1."""
        return 1 + sum(self.pieces[:piece])


class Batches:
    """One for each worker process; `owner` names it."""

    def __init__(self, store: Store, files: Files, queue: Queue, *, owner: str, lease_s: float) -> None:
        self._store = store
        self._files = files
        self._queue = queue
        self._owner = owner
        self._lease_ms = int(lease_s * 1000)
        self._begin = Script.read("gateway.jobs", "batch begin", "lua/begin.lua")
        self._take, self._keep, self._result, self._done, self._over = (
            Script.read("gateway.jobs", f"batch {name}", "lua/batch.lua", f"lua/{name}.lua")
            for name in ("take", "keep", "result", "done", "over")
        )

    # --- for clients ------------------------------------------------------------------------------------------

    async def create(self, who: Who, wanted: BatchRequest, file: FileMeta) -> BatchObject:
        """Begin a batch of an uploaded file.

        Raises:
            InvalidRequest: the file's lines ask for another endpoint, or too many batches are not over yet.
            StoreUnavailable
        """
        if file.urls != [wanted.endpoint]:
            message = f"The file's lines ask for {', '.join(file.urls)}, the batch for {wanted.endpoint}."
            raise InvalidRequest(message, param="endpoint", code="mismatched_endpoint")
        seconds = window_s(wanted.completion_window)
        await self._refuse_too_many(who.tenant)
        now = int(time.time())
        spec = Spec(
            id=f"batch_{secrets.token_hex(12)}",
            who=who,
            endpoint=wanted.endpoint,
            input_file_id=file.id,
            window=wanted.completion_window,
            metadata=wanted.metadata,
            created=now,
            ends=now + seconds,
            pieces=file.pieces,
        )
        name = batch_name(who.tenant, spec.id)
        lines = [word for piece, count in enumerate(spec.pieces) for word in (f"lines:{piece}", count)]
        words = ("spec", self._files.codec.close(_pack(spec), name), "ends", spec.ends, "pieces", len(spec.pieces))
        args = (seconds + _KEPT_S, "state", "validating", "next", 0, *words, *lines)
        await self._store.script(self._begin, (name,), args)
        await self._store.command("ZADD", _order_of(who.tenant), time.time_ns() // 1_000, spec.id)
        await self._store.command("EXPIRE", _order_of(who.tenant), 2 * _KEPT_S)
        await self._queue.add(name, min(TICKETS, len(spec.pieces)))
        return _object(spec, {b"state": b"validating"}, None)

    async def get(self, tenant: str, batch_id: str) -> BatchObject | None:
        """A batch as it is now; None: this tenant has none of that id, or no longer. Raises StoreUnavailable."""
        name = batch_name(tenant, batch_id)
        spec = await self.spec(name)
        return None if spec is None else await self._object(name, spec)

    async def ids(self, tenant: str) -> list[str]:
        """The ids of a tenant's batches, the newest first. Raises StoreUnavailable."""
        found = await self._store.command("ZREVRANGE", _order_of(tenant), 0, _MOST_LISTED)
        return [batch_id.decode() for batch_id in found]

    async def forget(self, tenant: str, ids: Sequence[str]) -> None:
        """Take what has expired off the list. Raises StoreUnavailable."""
        if ids:
            await self._store.command("ZREM", _order_of(tenant), *ids)

    async def cancel(self, tenant: str, batch_id: str) -> BatchObject | None:
        """End a batch; one that is over stays as it is. None: there is none. Raises StoreUnavailable."""
        name = batch_name(tenant, batch_id)
        if not await self._store.script(self._over, (name,), ("cancelling", "")):
            return None
        return await self.get(tenant, batch_id)

    async def content(self, meta: FileMeta) -> AsyncIterator[bytes]:
        """The lines of a file of results or errors, in the order of the input. Raises StoreUnavailable."""
        for piece in range(len(meta.pieces)):
            notes = await self._store.command("HGETALL", _results(meta.of_batch, piece))
            found = {int(line): note for line, note in zip(notes[::2], notes[1::2], strict=True)}
            lines = [(line, note) for line, note in sorted(found.items()) if (note[:1] == b"e") == meta.errors]
            if lines:
                yield b"".join(self._files.opened(note[1:], f"{meta.of_batch}:{line}") for line, note in lines)

    async def forget_content(self, meta: FileMeta) -> None:
        """Take the results, or the errors, of a batch out of the store. Raises StoreUnavailable."""
        for piece in range(len(meta.pieces)):
            name = _results(meta.of_batch, piece)
            notes = await self._store.command("HGETALL", name)
            pairs = zip(notes[::2], notes[1::2], strict=True)
            if lines := [line for line, note in pairs if (note[:1] == b"e") == meta.errors]:
                await self._store.command("HDEL", name, *lines)

    # --- for workers ------------------------------------------------------------------------------------------

    async def spec(self, name: str) -> Spec | None:
        """What a batch is; None: it is gone. Raises StoreUnavailable, also where its key is not here."""
        data = await self._store.command("HGET", name, "spec")
        if data is None:
            return None
        try:
            return msgspec.msgpack.decode(self._files.codec.open(data, name), type=Spec)
        except (zlib.error, ValueError) as error:
            raise StoreUnavailable(f"this batch cannot be read here: {error}") from None

    async def take(self, name: str) -> tuple[Mode, int]:
        """The next piece; -1: all are done, -2: others work on what is left. Raises StoreUnavailable."""
        keys = (name, _leases(name))
        what, piece = await self._store.script(self._take, keys, (self._owner, self._lease_ms))
        return what.decode(), piece

    async def keep(self, name: str, piece: int) -> Mode:
        """Show that its worker lives. Raises StoreUnavailable."""
        args = (self._owner, self._lease_ms, piece)
        found: Mode = (await self._store.script(self._keep, (name, _leases(name)), args)).decode()
        return found

    async def give_up(self, name: str, piece: int) -> None:
        """Let another work on it, at once. Raises StoreUnavailable."""
        await self._store.script(self._keep, (name, _leases(name)), (self._owner, 0, piece))

    async def known(self, name: str, piece: int) -> set[int]:
        """The lines of a piece of which is known what came of them. Raises StoreUnavailable."""
        return {int(line) for line in await self._store.command("HKEYS", _results(name, piece))}

    async def tried(self, name: str, piece: int, line: int, by: int = 1) -> int:
        """How often a line was begun, with this time; -1 takes one back. Raises StoreUnavailable."""
        tries: int = await self._store.command("HINCRBY", _tries(name, piece), line, by)
        await self._store.command("EXPIRE", _tries(name, piece), _KEPT_S)
        return tries

    async def note(self, name: str, piece: int, line: int, text: bytes, how: How) -> Mode:
        """Note what came of a line, once. Raises StoreUnavailable."""
        note = (b"r" if how == "completed" else b"e") + self._files.codec.close(text, f"{name}:{line}")
        args = (piece, line, note, how, len(text))
        found: Mode = (await self._store.script(self._result, (name, _results(name, piece)), args)).decode()
        return found

    async def done(self, name: str, piece: int) -> bool:
        """A piece is done, if it is. Raises StoreUnavailable."""
        keys = (name, _leases(name), _results(name, piece), _tries(name, piece))
        return bool(await self._store.script(self._done, keys, (piece,)) == 1)

    async def finish(self, name: str, spec: Spec) -> str:
        """All pieces are done: make files of what came of them, and end the batch. Any number of times.

        Raises StoreUnavailable.
        """
        sizes = await self._store.command("HMGET", name, "result_bytes", "error_bytes")
        for errors, size in zip((False, True), sizes, strict=True):
            if size:
                now = int(time.time())
                meta = FileMeta(
                    id=_file_id(spec, errors=errors),
                    filename=f"{spec.id}_{'error' if errors else 'output'}.jsonl",
                    purpose="batch_output",
                    bytes=int(size),
                    created=now,
                    expires=spec.ends + _KEPT_S,
                    pieces=spec.pieces,
                    of_batch=name,
                    errors=errors,
                )
                await self._files.put(spec.who.tenant, meta, bounded=False)
        state: bytes = await self._store.script(self._over, (name,), ("", ""))
        return state.decode()

    async def fail(self, name: str, code: str, message: str) -> None:
        """End a batch that cannot go on. Raises StoreUnavailable."""
        errors = {"object": "list", "data": [{"code": code, "message": message, "line": None, "param": None}]}
        await self._store.script(self._over, (name,), ("failed", msgspec.json.encode(errors)))

    # --- inside -----------------------------------------------------------------------------------------------

    async def _refuse_too_many(self, tenant: str) -> None:
        ids = (await self.ids(tenant))[: 10 * MOST_UNFINISHED]
        states = await asyncio.gather(
            *(self._store.command("HGET", batch_name(tenant, batch_id), "state") for batch_id in ids)
        )
        if sum(state is not None and state.decode() not in _OVER for state in states) >= MOST_UNFINISHED:
            message = f"{MOST_UNFINISHED} batches are not over yet: wait for one, or cancel one."
            raise InvalidRequest(message, code="too_many_batches")

    async def _object(self, name: str, spec: Spec) -> BatchObject:
        fields = await self._store.command("HGETALL", name)
        record = dict(zip(fields[::2], fields[1::2], strict=True))
        errors = record.get(b"errors")
        return _object(spec, record, None if errors is None else msgspec.json.decode(errors))


def _object(spec: Spec, record: dict[bytes, bytes], errors: dict[str, Any] | None) -> BatchObject:
    state = record[b"state"].decode()
    at = {key[3:].decode(): int(value) for key, value in record.items() if key.startswith(b"at:")}
    completed, failed, expired = (int(record.get(key, b"0")) for key in (b"completed", b"failed", b"expired"))
    over = state in {"completed", "expired", "cancelled"}
    found = BatchObject(
        id=spec.id,
        endpoint=spec.endpoint,
        errors=errors,
        input_file_id=spec.input_file_id,
        completion_window=spec.window,
        status=state,  # type: ignore[arg-type] # as the scripts write it
        output_file_id=_file_id(spec, errors=False) if over and completed else None,
        error_file_id=_file_id(spec, errors=True) if over and failed + expired else None,
        created_at=spec.created,
        expires_at=spec.ends,
        request_counts=RequestCounts(spec.lines, completed, failed + expired),
        metadata=spec.metadata,
    )
    return msgspec.structs.replace(found, **times_of(at))


def batch_name(tenant: str, batch_id: str) -> str:
    """The record's key in the store; what belongs to it has the same hash tag."""
    parts = msgspec.msgpack.encode((tenant, batch_id))
    return f"{PREFIX}batch:{{{hashlib.blake2b(parts, digest_size=20).hexdigest()}}}"


def _file_id(spec: Spec, *, errors: bool) -> str:
    return f"file-{spec.id.removeprefix('batch_')}{'e' if errors else 'o'}"


def _order_of(tenant: str) -> str:
    digest = hashlib.blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
    return f"{PREFIX}batches:{{{digest}}}"


def _leases(name: str) -> str:
    return f"{name}:leases"


def _results(name: str, piece: int) -> str:
    return f"{name}:results:{piece}"


def _tries(name: str, piece: int) -> str:
    return f"{name}:tries:{piece}"
