"""Books what is over, in the background: no answer waits for it, and no cancelled request takes it along.

A settlement is tried until the store takes it, always with the same id, so that it counts once. The queue is bounded;
one that is dropped loses nobody's money: its hold expires, and is booked at what it reserved.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable

import structlog

from gateway.budgets.settlements import Outcome, Settlement, answers_of, call_of, grouped
from gateway.errors import StoreRefused, StoreUnavailable
from gateway.store.client import Store
from gateway.store.line import Answer

_AT_ONCE = 64
_GATHER_S = 0.002
"""So long a settlement waits for others, to travel with them."""
_MOST_WAITING = 100_000
_PAUSE_FIRST_S = 0.05
_PAUSE_LAST_S = 1.0
_MOST_REFUSALS = 5


class Settler:
    """A queue of settlements and the one task that works it off. Owned by the ledger.

    `tell` is awaited for a tenant whose store has begun another epoch.
    """

    def __init__(self, store: Store, tell: Callable[[str], Awaitable[None]]) -> None:
        self._store = store
        self._tell = tell
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
            if len(self._queue) < _AT_ONCE:
                await asyncio.sleep(_GATHER_S)
            batch = [self._queue.popleft() for _ in range(min(_AT_ONCE, len(self._queue)))]
            smooth = False
            try:
                smooth = await self._book(batch)
            except StoreUnavailable:
                self._return(batch)
            except Exception:  # noqa: BLE001 a mistake with one of them must not end the booking of all others
                structlog.get_logger().exception("settling_failed", holds=len(batch))
                await self._book_one_by_one(batch)
            except BaseException:
                self._return(batch)
                raise
            if smooth:
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

    async def _book(self, batch: list[Settlement]) -> bool:
        """False when some are to be tried again. Empties `batch` of what is sorted out."""
        groups = grouped(batch)
        sent = self._store.healthy
        try:
            answers = await self._store.scripts([call_of(group) for group in groups])
        except StoreUnavailable:
            for settlement in batch:
                settlement.may_have_run = settlement.may_have_run or sent
            raise
        done, tell = set[int](), set[str]()
        try:
            for group, answer in zip(groups, answers, strict=True):
                for settlement, said in zip(group, answers_of(group, answer), strict=True):
                    outcome = self._sort_out(settlement, said, sent=sent)
                    if outcome is Outcome.DONE:
                        done.add(id(settlement))
                    if outcome is Outcome.TELL:
                        tell.add(settlement.tenant)
        finally:
            batch[:] = [settlement for settlement in batch if id(settlement) not in done]
        smooth = not any(isinstance(answer, StoreUnavailable) for answer in answers)
        for tenant in tell:
            await self._tell(tenant)
        self._return(batch)
        return smooth

    async def _book_one_by_one(self, batch: list[Settlement]) -> None:
        """Drop those with which something is wrong that nobody thought of."""
        for settlement in batch:
            settlement.may_have_run = True
            try:
                await self._book([settlement])
            except StoreUnavailable:
                self._return([settlement])
            except Exception as error:  # noqa: BLE001 as above
                self._drop(settlement, f"{type(error).__name__}: {error}")
        self._return(())

    def _sort_out(self, settlement: Settlement, answer: Answer, *, sent: bool) -> Outcome:
        if isinstance(answer, StoreRefused):
            settlement.refusals += 1
            if settlement.refusals < _MOST_REFUSALS:
                return Outcome.AGAIN
            self._drop(settlement, answer.message)
            return Outcome.DONE
        if isinstance(answer, StoreUnavailable):
            settlement.may_have_run = settlement.may_have_run or sent
            return Outcome.AGAIN
        outcome = settlement.answered(answer)
        if outcome is Outcome.DONE:
            self._done(settlement.tenant)
        return outcome

    def _return(self, settlements: Iterable[Settlement]) -> None:
        self._queue.extendleft(reversed(list(settlements)))
        if not self._queue:
            self._work.clear()
            self._idle.set()

    def _drop(self, settlement: Settlement, reason: str) -> None:
        self._done(settlement.tenant)
        self.dropped += 1
        structlog.get_logger().error("settlement_dropped", tenant=settlement.tenant, reason=reason)

    def _done(self, tenant: str) -> None:
        self._waiting[tenant] -= 1
        if self._waiting[tenant] <= 0:
            del self._waiting[tenant]
