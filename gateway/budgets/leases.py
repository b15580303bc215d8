"""Keeps the leases of open holds alive, and ends those of gateways that died."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator

import msgspec
import structlog

from gateway.budgets.claim import Hold
from gateway.budgets.memory import Memory
from gateway.budgets.scripts import Scripts
from gateway.budgets.terms import Terms, tenant_keys
from gateway.errors import StoreUnavailable
from gateway.store.client import PREFIX, ScriptCall, Store
from gateway.store.line import Answer
from gateway.store.script import RUN

TENANTS = PREFIX + "ledger-tenants"
"""Whose holds a reaper has to look after: a set, so that one gateway's are found by another."""
_HOLDS_PER_CALL = 100
_TENANTS_PER_CALL = 200

_pack = msgspec.msgpack.Encoder().encode


class OpenHold:
    """A hold in use, and what the store needs to know it again."""

    __slots__ = ("epoch", "hold", "record", "seq", "terms")

    def __init__(self, hold: Hold, terms: Terms, *, epoch: str, seq: int, record: bytes) -> None:
        self.hold = hold
        self.terms = terms
        self.epoch = epoch
        """In which it is known to be open; `seq`: since when."""
        self.seq = seq
        self.record = record

    @property
    def tenant(self) -> str:
        return self.terms.tenant


class Leases:
    """The open holds of this process. `renew` and `reap` run as long as the ledger does."""

    def __init__(self, store: Store, memory: Memory, scripts: Scripts, lease_s: float) -> None:
        self._store = store
        self._memory = memory
        self._scripts = scripts
        self._lease_s = lease_s
        self._open: dict[str, OpenHold] = {}
        self._tenants: set[str] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, entry: OpenHold) -> None:
        """From now on its lease is renewed."""
        self._open[entry.hold.id] = entry

    async def expect(self, tenant: str, *, again: bool = False) -> None:
        """Say, before its first hold, that a tenant may have some: whoever outlives this gateway looks after them.

        `again`: the store may have lost that. When it cannot be said now, it is said in the next round.
        """
        if again or tenant not in self._tenants:
            self._tenants.add(tenant)
            await self._note_tenants({tenant})

    def get(self, hold_id: str) -> OpenHold | None:
        """An open hold; None if it is not open here."""
        return self._open.get(hold_id)

    def take(self, hold_id: str) -> OpenHold | None:
        """It is over; None if it is not open here."""
        return self._open.pop(hold_id, None)

    def all(self) -> list[OpenHold]:
        """Take all that are open."""
        entries = list(self._open.values())
        self._open.clear()
        return entries

    def of(self, tenant: str) -> list[OpenHold]:
        """A tenant's, left where they are."""
        return [entry for entry in self._open.values() if entry.tenant == tenant]

    async def renew(self) -> None:
        """Renew every third of a lease, all open holds in one round trip. Runs for ever."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            batches = list(self._batches())
            if not batches:
                continue
            calls = [ScriptCall(self._scripts.renew, batch[0].terms.keys, self._words(batch)) for batch in batches]
            try:
                answers = await self._store.scripts(calls)
            except StoreUnavailable:
                continue  # the store says so itself; two more tries fit into the lease
            for batch, answer in zip(batches, answers, strict=True):
                self._note(batch, answer)

    async def reap(self) -> None:
        """End the leases that ran out, of whatever gateway, a few times in each lease. Runs for ever."""
        while True:
            await asyncio.sleep(self._lease_s / 4 * random.uniform(0.8, 1.2))  # noqa: S311 spreads gateways, hides nothing
            await self._note_tenants(self._tenants)
            try:
                tenants = [
                    name.decode(errors="surrogatepass") for name in await self._store.command("SMEMBERS", TENANTS)
                ]
                for start in range(0, len(tenants), _TENANTS_PER_CALL):
                    await self._expire(tenants[start : start + _TENANTS_PER_CALL])
            except StoreUnavailable:
                continue

    async def _note_tenants(self, tenants: set[str]) -> None:
        names = sorted(tenants)
        with contextlib.suppress(StoreUnavailable):
            for start in range(0, len(names), _TENANTS_PER_CALL):
                await self._store.script(self._scripts.tenants, (TENANTS,), names[start : start + _TENANTS_PER_CALL])

    async def _expire(self, tenants: list[str]) -> None:
        words = (RUN, _pack(("",)))
        calls = [ScriptCall(self._scripts.expire, tenant_keys(tenant), words) for tenant in tenants]
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

    def _words(self, batch: list[OpenHold]) -> tuple[str, bytes]:
        epoch = self._memory.of(batch[0].tenant).epoch
        return RUN, _pack((epoch, int(self._lease_s * 1000), *(entry.hold.id for entry in batch)))

    def _note(self, batch: list[OpenHold], answer: Answer) -> None:
        if isinstance(answer, StoreUnavailable):
            structlog.get_logger().error("leases_not_renewed", reason=answer.message)
        elif answer[0] == 1:  # else another epoch: whoever tells what we know puts them back
            for entry, renewed in zip(batch, answer[1:], strict=True):
                if not renewed and entry.hold.id in self._open:
                    structlog.get_logger().error("lease_lost", tenant=entry.tenant, hold=entry.hold.id)
