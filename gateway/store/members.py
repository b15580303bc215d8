"""Who serves: each worker of each replica says every few seconds which policy it has in force.

One hash, a field for each worker; a field that was not renewed for a while is of a worker that is gone.
"""

from __future__ import annotations

import os
import socket
import time

import msgspec

from gateway.store.client import PREFIX, Store

EVERY_S = 5.0
GONE_AFTER_S = 20.0
_KEY = f"{PREFIX}policy-members"
_KEPT_S = 3_600


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One worker and what it serves under."""

    name: str
    """Host and process id."""
    version: str
    refused: bool = False
    """Its folder holds a newer policy that cannot be used."""
    seen: float = 0.0
    """Unix time of its last word, in seconds."""


class Members:
    """This worker's voice among all, and everybody's last words."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    async def report(self, version: str, *, refused: bool) -> None:
        """Say what is in force here. Raises StoreUnavailable."""
        member = Member(name=self.name, version=version, refused=refused, seen=time.time())
        await self._store.command("HSET", _KEY, self.name, msgspec.json.encode(member))
        await self._store.command("EXPIRE", _KEY, _KEPT_S)

    async def leave(self) -> None:
        """Be gone at once. Raises StoreUnavailable."""
        await self._store.command("HDEL", _KEY, self.name)

    async def all(self) -> list[Member]:
        """Who serves now, by name. Raises StoreUnavailable."""
        values = await self._store.command("HVALS", _KEY)
        found = []
        for value in values or ():
            try:
                member = msgspec.json.decode(value, type=Member)
            except msgspec.MsgspecError:
                continue
            if time.time() - member.seen < GONE_AFTER_S:
                found.append(member)
        return sorted(found, key=lambda member: member.name)
