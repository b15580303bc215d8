"""What the store has of an answer that is fetched later.

    running ──finish.lua──▶ done            the answer, or the error in its place
       │ └──its client cancels──▶ cancelled
       └──its maker's lease ends──claim.lua──▶ running, made by another

A record is named by a hash of tenant and id: no tenant can name another's. Request, draft and answer are encrypted
where the cache is. Those that are being made are listed, so that any gateway finds one whose maker is gone.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any, Literal, TypeVar

import msgspec
import structlog

from gateway.cache.entry import EntryCodec
from gateway.errors import StoreUnavailable
from gateway.jobs.answering import Answer
from gateway.jobs.asked import Asked
from gateway.store.client import PREFIX, ScriptCall, Store
from gateway.store.script import Script

KEPT_S = 86_400.0
"""How long an answer can be fetched, in seconds, from when it is there; and the longest that it may take to make."""
MOST_BYTES = 32 * 1024 * 1024
_LIST = f"{PREFIX}later-running"

_T = TypeVar("_T")
State = Literal["running", "done", "cancelled"]
_pack = msgspec.msgpack.Encoder().encode


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One record."""

    state: State
    asked: Asked
    is_anew: bool
    """Another gateway took it over: what was read along before is not what comes now."""
    draft: dict[str, Any] | None = None
    answer: Answer | None = None


class Claimed(msgspec.Struct, frozen=True):
    """Taken over."""

    name: str
    asked: Asked
    tries: int


class LaterRecords:
    """One for all jobs of a worker process; `owner` names it."""

    def __init__(self, store: Store, codec: EntryCodec, *, owner: str, lease_s: float) -> None:
        self._store = store
        self._codec = codec
        self._owner = owner
        self._lease_ms = int(lease_s * 1000)
        self._create, self._claim, self._renew, self._finish, self._draft = (
            Script.read("gateway.jobs", f"job {name}", f"lua/{name}.lua")
            for name in ("create", "claim", "renew", "finish", "draft")
        )

    async def create(self, name: str, asked: Asked) -> None:
        """Note that an answer is being made here. Raises StoreUnavailable."""
        body = self._closed(asked, name, "asked")
        args = (self._owner, self._lease_ms, body, int(KEPT_S * 1000))
        await self._store.script(self._create, (name,), args)
        await self._store.command("SADD", _LIST, name)

    async def get(self, name: str) -> Kept | None:
        """The record; None: there is none, or no longer. Raises StoreUnavailable."""
        state, asked, anew, draft, answer = await self._store.command(
            "HMGET", name, "state", "asked", "anew", "draft", "answer"
        )
        if state is None:
            return None
        try:
            return Kept(
                state=state.decode(),
                asked=self._opened(asked, name, "asked", Asked),
                is_anew=anew is not None,
                draft=None if draft is None else self._opened(draft, name, "draft", dict[str, Any]),
                answer=None if answer is None else self._opened(answer, name, "answer", Answer),
            )
        except (zlib.error, ValueError) as error:
            structlog.get_logger().warning("later_unreadable", reason=str(error))
            return None

    async def note_draft(self, name: str, draft: dict[str, Any]) -> None:
        """Keep the draft, for whoever asks meanwhile. Raises StoreUnavailable."""
        await self._store.script(self._draft, (name,), (self._owner, self._closed(draft, name, "draft")))

    async def finish(self, name: str, answer: Answer) -> bool:
        """Write the answer; False: it is not ours to write any more. Raises StoreUnavailable."""
        args = (self._owner, self._closed(answer, name, "answer"), int(KEPT_S * 1000), "done")
        written = await self._store.script(self._finish, (name,), args)
        await self._store.command("SREM", _LIST, name)
        return bool(written == 1)

    async def cancel(self, name: str) -> bool:
        """End it for its client; False: it was over, or there is none. Raises StoreUnavailable."""
        nothing = self._closed(Answer(status=499, body=b""), name, "answer")
        return bool(
            await self._store.script(self._finish, (name,), ("", nothing, int(KEPT_S * 1000), "cancelled")) == 1
        )

    async def delete(self, name: str) -> bool:
        """Forget it; False: there was none. Raises StoreUnavailable."""
        return bool(await self._store.command("DEL", name))

    async def renew(self, names: list[str]) -> list[bool]:
        """Show that their maker lives; False for each that is not ours any more. Raises StoreUnavailable."""
        calls = [ScriptCall(self._renew, (name,), (self._owner, self._lease_ms)) for name in names]
        return [isinstance(answer, StoreUnavailable) or answer == 1 for answer in await self._store.scripts(calls)]

    async def give_up(self, name: str) -> None:
        """Let another gateway make it, at once. Raises StoreUnavailable."""
        await self._store.script(self._renew, (name,), (self._owner, 0))

    async def abandoned(self, most: int) -> list[Claimed]:
        """Take over at most so many whose makers are gone. Raises StoreUnavailable."""
        names = [name.decode() for name in await self._store.command("SMEMBERS", _LIST)]
        found: list[Claimed] = []
        for name in names:
            if len(found) >= most:
                break
            answer = await self._store.script(self._claim, (name,), (self._owner, self._lease_ms))
            if answer[0] == 0:
                await self._store.command("SREM", _LIST, name)
            elif answer[0] == 2:
                try:
                    found.append(Claimed(name, self._opened(answer[2], name, "asked", Asked), int(answer[1])))
                except (zlib.error, ValueError) as error:  # of another version, or sealed with a key that is not here
                    structlog.get_logger().warning("later_unreadable", reason=str(error))
        return found

    def _closed(self, value: object, name: str, field: str) -> bytes:
        return self._codec.close(_pack(value), f"{name}:{field}")

    def _opened(self, data: bytes, name: str, field: str, kind: type[_T]) -> _T:
        return msgspec.msgpack.decode(self._codec.open(data, f"{name}:{field}"), type=kind)


def name_of(tenant: str, answer_id: str) -> str:
    """The record's key in the store."""
    parts = msgspec.msgpack.encode((tenant, answer_id))
    return f"{PREFIX}later:{{{hashlib.blake2b(parts, digest_size=20).hexdigest()}}}"
