"""Keeps the leases of open holds alive, and ends those of gateways that died."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import structlog

from gateway.budgets.claim import Hold
from gateway.budgets.terms import tenant_keys
from gateway.errors import StoreUnavailable
from gateway.store.client import PREFIX, ScriptCall, Store
from gateway.store.line import Argument
from gateway.store.script import Script

_TENANTS = PREFIX + "ledger-tenants"
"""Whose holds a reaper has to look after: a set, so that one gateway's are found by another."""
_HOLDS_PER_CALL = 100
_TENANTS_PER_CALL = 200


class OpenHold:
    """A hold in use, and what the store needs to know it again."""

    __slots__ = ("epoch", "hold", "keys", "record", "tenant")

    def __init__(self, hold: Hold, tenant: str, keys: tuple[str, ...], epoch: bytes, record: bytes) -> None:
        self.hold = hold
        self.tenant = tenant
        self.keys = keys
        self.epoch = epoch
        self.record = record


class Leases:
    """The open holds of this process. `renew` and `reap` run as long as the ledger does."""

    def __init__(self, store: Store, lease_s: float, *, renew: Script, expire: Script) -> None:
        self._store = store
        self._lease_s = lease_s
        self._renew_script = renew
        self._expire_script = expire
        self._open: dict[str, OpenHold] = {}
        self._tenants: set[str] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, entry: OpenHold) -> None:
        """From now on its lease is renewed."""
        self._open[entry.hold.id] = entry
        self._tenants.add(entry.tenant)

    def take(self, hold_id: str) -> OpenHold | None:
        """It is over; None if it is not open here."""
        return self._open.pop(hold_id, None)

    def all(self) -> list[OpenHold]:
        """Take all that are open."""
        entries = list(self._open.values())
        self._open.clear()
        return entries

    async def renew(self) -> None:
        """Renew every third of a lease, all open holds in one round trip. Runs for ever."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            batches = list(self._batches())
            calls = [ScriptCall(self._renew_script, batch[0].keys, self._renew_words(batch)) for batch in batches]
            if not calls:
                continue
            try:
                answers = await self._store.scripts(calls)
            except StoreUnavailable:
                continue  # the store says so itself; two more tries fit into the lease
            for batch, answer in zip(batches, answers, strict=True):
                if isinstance(answer, StoreUnavailable):
                    structlog.get_logger().error("leases_not_renewed", reason=answer.message)
                else:
                    self._note(batch, answer)

    async def reap(self) -> None:
        """End the leases that ran out, of whatever gateway, a few times in each lease. Runs for ever."""
        while True:
            await asyncio.sleep(self._lease_s / 4 * random.uniform(0.8, 1.2))  # noqa: S311 spreads gateways, hides nothing
            try:
                if self._tenants:
                    await self._store.command("SADD", _TENANTS, *sorted(self._tenants))
                tenants = [name.decode() for name in await self._store.command("SMEMBERS", _TENANTS)]
                for start in range(0, len(tenants), _TENANTS_PER_CALL):
                    await self._expire(tenants[start : start + _TENANTS_PER_CALL])
            except StoreUnavailable:
                continue

    async def _expire(self, tenants: list[str]) -> None:
        calls = [ScriptCall(self._expire_script, tenant_keys(tenant), ()) for tenant in tenants]
        for tenant, ended in zip(tenants, await self._store.scripts(calls), strict=True):
            if isinstance(ended, int) and ended > 0:
                structlog.get_logger().warning("holds_expired", tenant=tenant, holds=ended)

    def _batches(self) -> Iterator[list[OpenHold]]:
        """Open holds by tenant, in groups that keep each call short."""
        by_tenant: dict[str, list[OpenHold]] = {}
        for entry in self._open.values():
            by_tenant.setdefault(entry.tenant, []).append(entry)
        for entries in by_tenant.values():
            for start in range(0, len(entries), _HOLDS_PER_CALL):
                yield entries[start : start + _HOLDS_PER_CALL]

    def _renew_words(self, batch: list[OpenHold]) -> list[Argument]:
        words: list[Argument] = [int(self._lease_s * 1000)]
        for entry in batch:
            words += (entry.hold.id, entry.epoch, entry.record)
        return words

    def _note(self, batch: list[OpenHold], answer: list[bytes | int]) -> None:
        epoch = answer[0]
        for entry, renewed in zip(batch, answer[1:], strict=True):
            if renewed and isinstance(epoch, bytes):
                entry.epoch = epoch
            elif entry.hold.id in self._open:
                structlog.get_logger().error("lease_lost", tenant=entry.tenant, hold=entry.hold.id)
