"""Tenants and their keys that live in the store: made through the admin API, known to all replicas.

One record for each tenant, with a revision that grows with each change: a worker asks once a second for what has a
newer one than it knows, and reads only that. Requests ask nobody. While the store is gone, what is known stays so; a
store that lost records (an empty restart, a failover) is given them back by whoever knows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import msgspec
import structlog

from gateway.errors import Conflict, StoreUnavailable
from gateway.store.client import PREFIX, Store
from gateway.store.script import Script
from gateway.tenants.stored import StoredTenant

POLL_S = 1.0
_LOOKS_BETWEEN_RESTORES = 10
_AT_ONCE = 100
_MOST_TRIES = 5
_RECORDS, _REVISIONS = f"{PREFIX}{{tenants}}:records", f"{PREFIX}{{tenants}}:revisions"
_KEYS = (_RECORDS, _REVISIONS)


class Known(NamedTuple):
    """A record as this worker knows it."""

    tenant: StoredTenant
    revision: int
    data: bytes


class TenantRegistry:
    """The records of a store, as far as this worker has heard."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._put = Script.read("gateway.tenants", "put", "put.lua")
        self._restore = Script.read("gateway.tenants", "restore", "restore.lua")
        self._known: dict[str, Known] = {}
        self._seen: dict[str, int] = {}
        """The revisions that were read, also of records that are unreadable here."""
        self._newest = 0
        self._reading = asyncio.Lock()

    @property
    def tenants(self) -> Mapping[str, StoredTenant]:
        """All that are known and not deleted, by name."""
        return {name: known.tenant for name, known in sorted(self._known.items()) if not known.tenant.deleted}

    async def look(self) -> bool:
        """Read what has changed. True when something had. Raises StoreUnavailable."""
        async with self._reading:
            changed = await self._read(f"({self._newest}")
            if await self._store.command("ZCARD", _REVISIONS) > len(self._seen):  # some were given back: they are older
                changed = await self._read("-inf") or changed
            return changed

    async def _read(self, first: str) -> bool:
        """Read what has a revision from `first` on, where it is newer than what is known. True where there is any."""
        answer = await self._store.command("ZRANGEBYSCORE", _REVISIONS, first, "+inf", "WITHSCORES")
        found = {name.decode(): int(float(score)) for name, score in zip(answer[::2], answer[1::2], strict=True)}
        names = [name for name, revision in found.items() if self._seen.get(name, 0) < revision]
        for begin in range(0, len(names), _AT_ONCE):
            part = names[begin : begin + _AT_ONCE]
            for name, data in zip(part, await self._store.command("HMGET", _RECORDS, *part), strict=True):
                self._take(name, found[name], data)
        return bool(names)

    async def change(self, name: str, changed: Callable[[StoredTenant | None], StoredTenant]) -> StoredTenant:
        """Write what `changed` makes of the record (None: there is none); asked again where another was faster.

        Raises:
            StoreUnavailable: whether it was written is not known.
            Conflict: others change it all the time.
            FirstdraftError: what `changed` raises; nothing is written.
        """
        for _ in range(_MOST_TRIES):
            await self.look()
            known = self._known.get(name)
            before = None if known is None or known.tenant.deleted else known.tenant
            after = changed(before)
            data = msgspec.json.encode(after)
            done, revision = await self._store.script(self._put, _KEYS, (name, known.revision if known else 0, data))
            if done:
                self._take(name, int(revision), data)
                return after
        raise Conflict(f"The tenant {name!r} is being changed by others; try again.")

    async def follow(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Look every second, until cancelled; `on_change` is called after something had changed."""
        looks = 0
        while True:
            await asyncio.sleep(POLL_S)
            looks += 1
            try:
                if await self.look():
                    await on_change()
                if looks % _LOOKS_BETWEEN_RESTORES == 0:
                    await self.restore()
            except StoreUnavailable:
                continue  # what is known stays so
            except Exception:  # noqa: BLE001 - see below; what it was is logged with its traceback
                # Whatever goes wrong with one look, the tenants that are known are served, and the next look comes.
                structlog.get_logger().exception("tenants_not_read")

    async def restore(self) -> None:
        """Give the store back what it has lost, if it has. Raises StoreUnavailable."""
        newest = await self._store.command("ZREVRANGE", _REVISIONS, 0, 0, "WITHSCORES")
        count = await self._store.command("ZCARD", _REVISIONS)
        if not self._known or (newest and int(float(newest[1])) >= self._newest and count >= len(self._known)):
            return
        known = list(self._known.items())
        for begin in range(0, len(known), _AT_ONCE):
            part = known[begin : begin + _AT_ONCE]
            words = [word for name, one in part for word in (name, one.revision, one.data)]
            await self._store.script(self._restore, _KEYS, words)
        structlog.get_logger().warning("tenants_restored", tenants=len(known), reason="the store had lost some")

    def _take(self, name: str, revision: int, data: object) -> None:
        """Note a record. One that cannot be read leaves what was known: a newer gateway may have written it."""
        self._seen[name] = revision
        self._newest = max(self._newest, revision)
        if not isinstance(data, bytes):
            return
        try:
            tenant = msgspec.json.decode(data, type=StoredTenant)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            structlog.get_logger().error("tenant_unreadable", tenant=name, reason=str(error))
            return
        self._known[name] = Known(tenant, revision, data)
