"""Books what is over, in the background: no answer waits for it, and no cancelled request takes it along.

A settlement is tried until the store takes it, always with the same id, so that it counts once. The queue is bounded;
one that is dropped loses nobody's money: its hold expires, and is booked at what it reserved.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

import structlog

from gateway.errors import StoreUnavailable
from gateway.store.client import ScriptCall, Store

_AT_ONCE = 64
_MOST_WAITING = 100_000
_PAUSE_FIRST_S = 0.05
_PAUSE_LAST_S = 1.0
_MOST_REFUSALS = 5


class Settlement(NamedTuple):
    """One script call that has to succeed once. `booked` runs when it has; `refusals` counts the server's."""

    tenant: str
    call: ScriptCall
    booked: Callable[[], None] | None = None
    refusals: int = 0


class Settler:
    """A queue of settlements and the one task that works it off. Owned by the ledger."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: deque[Settlement] = deque()
        self._waiting: Counter[str] = Counter()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.dropped = 0
        """Settlements that were given up: their holds are booked at what they reserved."""

    def add(self, settlement: Settlement) -> None:
        """Take a settlement over; never waits."""
        if len(self._queue) >= _MOST_WAITING:
            self._drop(self._queue.popleft(), "too many wait for the store")
        self._queue.append(settlement)
        self._waiting[settlement.tenant] += 1
        self._idle.clear()
        self._work.set()

    def waiting(self, tenant: str) -> int:
        """How many of a tenant's settlements are not booked yet."""
        return self._waiting.get(tenant, 0)

    async def flush(self, limit_s: float) -> None:
        """Wait until all is booked, or the time is over."""
        try:
            async with asyncio.timeout(limit_s):
                await self._idle.wait()
        except TimeoutError:
            pass

    async def run(self) -> None:
        """Work the queue off, for ever."""
        pause_s = _PAUSE_FIRST_S
        while True:
            await self._work.wait()
            batch = [self._queue.popleft() for _ in range(min(_AT_ONCE, len(self._queue)))]
            try:
                answers = await self._store.scripts([settlement.call for settlement in batch])
            except StoreUnavailable:
                self._queue.extendleft(reversed(batch))
            except BaseException:
                self._queue.extendleft(reversed(batch))
                raise
            else:
                if self._sort_out(batch, answers):
                    pause_s = _PAUSE_FIRST_S
                    continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_LAST_S)

    def report_unsettled(self) -> None:
        """At the end: say what could not be booked."""
        if self._queue:
            structlog.get_logger().error(
                "unsettled",
                holds=len(self._queue),
                reason="the store could not be reached; they are booked at what they reserved when their leases end",
            )

    def _sort_out(self, batch: list[Settlement], answers: list[object]) -> bool:
        """False when the server refused one that is to be tried again."""
        smooth = True
        for settlement, answer in zip(batch, answers, strict=True):
            if not isinstance(answer, StoreUnavailable):
                self._done(settlement.tenant)
                if settlement.booked is not None:
                    settlement.booked()
            elif settlement.refusals + 1 < _MOST_REFUSALS:
                self._queue.append(settlement._replace(refusals=settlement.refusals + 1))
                smooth = False
            else:
                self._drop(settlement, answer.message)
        if not self._queue:
            self._work.clear()
            self._idle.set()
        return smooth

    def _drop(self, settlement: Settlement, reason: str) -> None:
        self._done(settlement.tenant)
        self.dropped += 1
        structlog.get_logger().error("settlement_dropped", tenant=settlement.tenant, reason=reason)

    def _done(self, tenant: str) -> None:
        self._waiting[tenant] -= 1
        if self._waiting[tenant] <= 0:
            del self._waiting[tenant]
