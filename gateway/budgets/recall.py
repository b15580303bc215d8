"""Tells a store that may have lost something what this gateway knows, before it is asked anything else."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from gateway.budgets.leases import Leases
from gateway.budgets.memory import Memory, Told, recall_words
from gateway.budgets.scripts import Scripts
from gateway.budgets.terms import Clock, tenant_keys
from gateway.errors import StoreRefused, StoreUnavailable
from gateway.store.client import ScriptCall, Store
from gateway.store.script import RUN

_LOOK_EVERY_S = 0.4
"""The scripts let holds that fail closed wait twice as long (`RECALL_MS`): no gateway may notice later."""
_AT_ONCE = 200
"""Tenants in one round trip, and in one look: those with the newest word. After a new connection all are looked at."""

_pack = msgspec.msgpack.Encoder().encode


class Recall:
    """Watches the epochs of all tenants that this gateway knows. `run` runs as long as the ledger does."""

    def __init__(
        self,
        store: Store,
        memory: Memory,
        clock: Clock,
        scripts: Scripts,
        *,
        lease_ms: int,
        leases: Leases,
    ) -> None:
        self._store = store
        self._memory = memory
        self._clock = clock
        self._scripts = scripts
        self._lease_ms = lease_ms
        self._leases = leases
        self._telling: dict[str, asyncio.Lock] = {}

    async def tell(self, tenant: str, epoch: str) -> None:
        """Tell what is known, because `epoch` is over; put open holds back. Raises StoreUnavailable."""
        async with self._telling.setdefault(tenant, asyncio.Lock()):
            memory = self._memory.of(tenant)
            if memory.epoch != epoch or not epoch:
                return  # somebody else has told it meanwhile
            counters = memory.to_tell(self._clock.now_s())
            call = ScriptCall(self._scripts.recall, tenant_keys(tenant), (RUN, recall_words(epoch, counters)))
            answer = await self._store.script(*call)
            now, (new, now_ms, seq) = answer[3:], answer[:3]
            self._clock.note(now_ms)
            memory.epoch = new.decode()
            for (field, told), start, spent in zip(counters, now[::2], now[1::2], strict=False):
                if start == told.start_s:
                    memory.counters[field] = Told(memory.epoch, seq, start, spent, told.end_s, told.limit)
            structlog.get_logger().warning(
                "budgets_recalled",
                tenant=tenant,
                epoch=memory.epoch,
                counters=len(counters),
                reason="the store changed",
            )
            await self._leases.expect(tenant, again=True)
            await self._put_back(tenant, memory.epoch, seq)

    async def run(self) -> None:
        """Look again and again, and after each new connection, whether a store has begun another epoch. For ever."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._store.new_line.wait()
                everywhere = True
            except TimeoutError:
                everywhere = False
            self._store.new_line.clear()
            if self._store.healthy:
                try:
                    await self._look(everywhere=everywhere)
                except StoreRefused as error:
                    structlog.get_logger().error("budgets_not_recalled", reason=error.message)
                except StoreUnavailable:
                    continue  # it will be looked at again

    async def _look(self, *, everywhere: bool = True) -> None:
        memories = sorted(self._memory.known().items(), key=lambda known: known[1].heard_at_s, reverse=True)
        known = [(tenant, memory.epoch) for tenant, memory in (memories if everywhere else memories[:_AT_ONCE])]
        for start in range(0, len(known), _AT_ONCE):
            part = known[start : start + _AT_ONCE]
            calls = [
                ScriptCall(self._scripts.epoch, tenant_keys(tenant), (RUN, _pack((epoch,)))) for tenant, epoch in part
            ]
            for (tenant, epoch), answer in zip(part, await self._store.scripts(calls), strict=True):
                if isinstance(answer, list) and answer[0].decode() != epoch:
                    await self.tell(tenant, epoch)

    async def _put_back(self, tenant: str, epoch: str, seq: int) -> None:
        holds = [entry for entry in self._leases.of(tenant) if entry.epoch != epoch]
        if not holds:
            return
        words = _pack((epoch, self._lease_ms, *((entry.hold.id, entry.epoch, entry.seq) for entry in holds)))
        records = [entry.record for entry in holds]
        answer = await self._store.script(self._scripts.putback, tenant_keys(tenant), (RUN, words, *records))
        ended = 0
        for entry, is_open in zip(holds, answer[1:], strict=False):
            if is_open:
                entry.epoch, entry.seq = epoch, seq
            else:
                ended += 1
        structlog.get_logger().info("holds_put_back", tenant=tenant, holds=len(holds) - ended, ended=ended)
