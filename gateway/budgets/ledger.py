"""The ledger: nobody spends more than its limits, whatever ends in the middle.

The life of a hold, as a gateway sees it (as the store sees it: `lua/shared.lua`):

    hold() entered ──hold.lua──> open ──left, in any way──> queued ──settle.lua──> booked
         │                        ├── every third of a lease: renew.lua
         │                        └── a dearer target is tried: extend.lua, or it is not tried
         ├── refused: BudgetSpent, RateLimited; nothing was taken
         ├── not heard (store gone, task cancelled): given up by its id, should it have been taken all the same
         └── store gone and `fail: open`: granted by `allowance`, and reported with book.lua when the store is back

A gateway that dies settles nothing: its leases end, and each of its holds is booked at what it reserved by any
gateway's reaper; until then it counts just so. A settlement that comes after that changes nothing: too much is booked
then, never too little. A store that may have lost something is told what this gateway was told before (`recall`).
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

import msgspec
import structlog

from gateway.budgets.allowance import Allowance
from gateway.budgets.claim import Charge, Claim, Hold, Left, grant_headers, worst_case
from gateway.budgets.leases import Leases, OpenHold
from gateway.budgets.limit import Limit
from gateway.budgets.memory import Memory
from gateway.budgets.recall import Recall
from gateway.budgets.refusal import budget_spent, larger_than_rate, rate_limited
from gateway.budgets.scripts import Scripts
from gateway.budgets.settlements import GivingUp, Reporting, Settling
from gateway.budgets.settler import Settler
from gateway.budgets.terms import (
    EPOCH,
    FIRST_LIMIT,
    HELD,
    LARGE,
    RATE,
    SPENT,
    WAIT,
    WINDOWS,
    Clock,
    Reply,
    Terms,
    TermsOf,
    hold_words,
    read_left,
    read_reply,
    readable,
)
from gateway.budgets.warnings import Warnings
from gateway.errors import FirstdraftError, LimitReached, StoreUnavailable
from gateway.store.client import Store
from gateway.store.script import RUN

__all__ = ["Claim", "Hold", "Ledger", "Left"]

_SETTLE_FIRST_S = 0.25
_FLUSH_AT_EXIT_S = 3.0
_RETRY_AFTER_S = 1.0
_MOST_TRIES = 5
"""Of one hold: another epoch, other windows, a wait, and again."""

_pack = msgspec.msgpack.Encoder().encode


class Ledger:
    """Takes holds and settles them; an async context manager. One for all requests of a gateway process.

    Args:
        store: where all gateways count together.
        lease_s: how long a hold outlives its gateway, seconds.
    """

    def __init__(self, store: Store, *, lease_s: float = 60.0) -> None:
        self._store = store
        self._lease_ms = int(lease_s * 1000)
        self._scripts = Scripts()
        self._clock = Clock()
        self._terms = TermsOf()
        self._warnings = Warnings()
        self._allowance = Allowance()
        self._memory = Memory()
        self._leases = Leases(store, self._memory, self._scripts, lease_s)
        self._recall = Recall(
            store, self._memory, self._clock, self._scripts, lease_ms=self._lease_ms, leases=self._leases
        )
        self._settler = Settler(store, self._tell)
        self._local: dict[str, Hold] = {}
        self._tasks: list[asyncio.Task[None]] = []
        # Ids are the gateway's own: two requests that a client gave one id must not pass for one.
        gateway = secrets.token_hex(8)
        self._ids = (f"{gateway}-{number:x}" for number in itertools.count())

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._settler.run(), name="ledger: settle"),
            asyncio.create_task(self._leases.renew(), name="ledger: renew leases"),
            asyncio.create_task(self._leases.reap(), name="ledger: reap"),
            asyncio.create_task(self._recall.run(), name="ledger: recall"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for entry in self._leases.all():
            self._settler.add(Settling(entry, self._memory, self._scripts))
        for hold_id in list(self._local):
            self._settle_local(hold_id)
        await self._settler.flush(_FLUSH_AT_EXIT_S)
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                structlog.get_logger().error("ledger_task_failed", exc_info=outcome)
        self._settler.report_unsettled()

    def hold(self, claim: Claim) -> AbstractAsyncContextManager[Hold]:
        """Reserve a claim's worst case; leaving the context settles it, in the background and exactly once.

        What is booked: the hold's charge; nothing if it was released; all that was reserved if neither was said.
        A claim that nothing limits costs no call to the store.

        Raises:
            BudgetSpent: a limit does not leave `min_output_tokens`; names it, and when it resets.
            RateLimited: it comes too fast; `retry_after_s` says when it may come, None: it is too large for the rate.
            StoreUnavailable: the store is gone, and the tenant's budgets fail closed, or its allowance is used up.
        """
        return _Holding(self, claim)

    async def left(self, tenant: str, limits: tuple[Limit, ...]) -> tuple[Left, ...]:
        """What each of these limits leaves now, held amounts counted as spent; what is over here is booked before.

        Raises StoreUnavailable.
        """
        if not limits:
            return ()
        if self._settler.waiting(tenant):
            await self._settler.flush(_SETTLE_FIRST_S)
        terms = Terms(tenant, limits, "")
        for _ in range(_MOST_TRIES):
            words = _pack(("", terms.packed(self._clock.now_s())))
            answer = await self._store.script(self._scripts.left, terms.keys, (RUN, words))
            self._clock.note(answer[1])
            if answer[0] != WINDOWS:
                return read_left(answer, 3, limits, answer[1] / 1000)
        raise StoreUnavailable(f"The store's clock does not stand still: the budgets of {tenant!r} have no window.")

    def share_left(self, tenant: str, feature: str = "") -> float:
        """The smallest share, 0..1, that the last answers left of the tenant's limits and the feature's; no I/O.

        1.0 where nothing is known.
        """
        return self._memory.of(tenant).share_left(feature, self._clock.now_s())

    @property
    def open_holds(self) -> int:
        """Taken and not handed over to settlement, in this process."""
        return len(self._leases) + len(self._local)

    # --- taking -----------------------------------------------------------------------------------------------

    async def take(self, claim: Claim) -> Hold:
        """Reserve; whoever calls it must call `end` with the hold. `hold` does both."""
        terms = self._terms(claim.tenant, claim.limits, claim.feature, claim.key)
        rated = claim.rate is not None and bool(claim.rate.requests or claim.rate.tokens)
        hold_id = f"{readable(claim.id)}.{next(self._ids)}"
        if not terms.limits and not rated:
            nothing = worst_case(claim, 0)
            return Hold(hold_id=hold_id, claim=claim, output_tokens=claim.output_tokens, reserved=nothing)
        await self._leases.expect(claim.tenant)
        sent = self._store.healthy
        try:
            reply = await self._ask(claim, terms, hold_id)
        except (StoreUnavailable, asyncio.CancelledError) as trouble:
            if sent:
                self._settler.add(GivingUp(hold_id, terms, self._scripts))
            if isinstance(trouble, StoreUnavailable):
                return self._without_store(claim, terms, hold_id, trouble)
            raise
        if reply.what != HELD:
            refusal = _refusal(claim, reply)
            if isinstance(refusal, LimitReached):
                refusal.left = grant_headers(reply.left, reply.requests, reply.tokens)
            raise refusal
        hold = Hold(
            hold_id=hold_id,
            claim=claim,
            output_tokens=reply.output_tokens,
            reserved=worst_case(claim, reply.output_tokens),
            left=reply.left,
            rates=(reply.requests, reply.tokens),
        )
        self._leases.add(OpenHold(hold, terms, epoch=reply.epoch, seq=reply.seq, record=reply.record))
        self._warnings.note(claim.tenant, hold)
        return hold

    async def extend(self, hold: Hold, needed: Charge) -> bool:
        """Reserve `needed` in all, for a target that costs more. False, and nothing changed, where that is too much.

        Also False while the store is gone, unless the tenant's budgets fail open and its allowance suffices.
        """
        before = hold.reserved
        if needed.tokens <= before.tokens and needed.nanousd <= before.nanousd:
            return True
        needed = msgspec.structs.replace(
            needed, tokens=max(needed.tokens, before.tokens), nanousd=max(needed.nanousd, before.nanousd)
        )
        entry = self._leases.get(hold.id)
        if entry is not None and entry.terms.limits:
            if not await self._extended(entry, needed):
                return False
        elif hold.id in self._local:
            terms = self._terms(hold.claim.tenant, hold.claim.limits, hold.claim.feature, hold.claim.key)
            spent = self._memory.of(terms.tenant).spent(terms, self._clock.now_s())
            if not self._allowance.extend(terms.tenant, terms.limits, spent, before=before, after=needed):
                return False
        hold.reserved = needed
        return True

    def end(self, hold: Hold) -> None:
        """Hand a hold over to settlement; never waits. A second time does nothing."""
        entry = self._leases.take(hold.id)
        if entry is not None:
            self._settler.add(Settling(entry, self._memory, self._scripts))
        else:
            self._settle_local(hold.id)

    async def _ask(self, claim: Claim, terms: Terms, hold_id: str) -> Reply:
        """Ask the store. While this tenant's own settlements are on their way, less than all is no answer yet."""
        unsettled = self._settler.waiting(claim.tenant) > 0
        fewest = claim.output_tokens if unsettled else claim.min_output_tokens
        reply = await self._run_hold(claim, terms, hold_id, fewest)
        if unsettled and reply.what != HELD:
            await self._settler.flush(_SETTLE_FIRST_S)
            reply = await self._run_hold(claim, terms, hold_id, claim.min_output_tokens)
        return reply

    async def _run_hold(self, claim: Claim, terms: Terms, hold_id: str, fewest: int) -> Reply:
        """Run the script, and again with what it says that it has to know."""
        memory = self._memory.of(claim.tenant)
        for tries_left in range(_MOST_TRIES - 1, -1, -1):
            epoch = memory.epoch
            words = hold_words(
                claim,
                terms,
                epoch=epoch,
                hold_id=hold_id,
                lease_ms=self._lease_ms,
                fewest=fewest,
                now_s=self._clock.now_s(),
                server="" if epoch else self._store.age(terms.keys[0]),
            )
            answer = await self._store.script(self._scripts.hold, terms.keys, (RUN, words))
            self._clock.note(answer[5])
            what = answer[0]
            if what in _AGAIN and tries_left:
                if what == EPOCH:
                    await self._recall.tell(claim.tenant, epoch)
                elif what == WAIT:
                    await asyncio.sleep(answer[1] / 1000)
                continue
            if what in _SAY_COUNTERS:
                memory.note(answer[3].decode(), answer[6], terms, answer, FIRST_LIMIT)
            return read_reply(answer, terms, claim.rate)
        raise AssertionError  # the last try returns

    async def _extended(self, entry: OpenHold, needed: Charge) -> bool:
        terms, memory = entry.terms, self._memory.of(entry.tenant)
        try:
            for _ in range(_MOST_TRIES):
                epoch, limits = memory.epoch, terms.packed(self._clock.now_s())
                words = _pack((epoch, entry.hold.id, needed.tokens, needed.nanousd, limits))
                answer = await self._store.script(self._scripts.extend, terms.keys, (RUN, words))
                self._clock.note(answer[3])
                if answer[0] == EPOCH:
                    await self._recall.tell(entry.tenant, epoch)
                elif answer[0] != WINDOWS:
                    break
            else:
                return False
        except StoreUnavailable:
            return False  # if it ran all the same, more is held than needed until it is settled
        if answer[0] == HELD:
            entry.record = answer[5]
            memory.note(answer[4].decode(), answer[2], terms, answer, 6)
        return bool(answer[0] == HELD)

    async def _tell(self, tenant: str) -> None:
        await self._recall.tell(tenant, self._memory.of(tenant).epoch)

    def _without_store(self, claim: Claim, terms: Terms, hold_id: str, trouble: StoreUnavailable) -> Hold:
        if claim.fail == "closed":
            raise StoreUnavailable(
                f"The budget of tenant {claim.tenant!r} cannot be checked now. Try again later.",
                retry_after_s=_RETRY_AFTER_S,
            ) from trouble
        spent = self._memory.of(terms.tenant).spent(terms, self._clock.now_s())
        output = self._allowance.take(claim, terms.limits, spent)
        reserved = worst_case(claim, output)
        hold = Hold(
            hold_id=f"{hold_id}.open",
            claim=claim,
            output_tokens=output,
            reserved=reserved,
            is_limited=bool(terms.limits),
        )
        self._local[hold.id] = hold
        structlog.get_logger().warning("granted_without_store", tenant=claim.tenant, hold=hold.id)
        return hold

    # --- settling ---------------------------------------------------------------------------------------------

    def _settle_local(self, hold_id: str) -> None:
        """Report what was granted without the store; until the store has it, it is part of the allowance."""
        hold = self._local.pop(hold_id, None)
        if hold is None:
            return
        claim, charge = hold.claim, hold.charged
        terms = self._terms(claim.tenant, claim.limits, claim.feature, claim.key)
        self._allowance.change(claim.tenant, terms.limits, hold.reserved, -1)
        self._allowance.change(claim.tenant, terms.limits, charge, 1)

        def reported() -> None:
            self._allowance.change(claim.tenant, terms.limits, charge, -1)
            structlog.get_logger().info("reported_to_store", tenant=claim.tenant, hold=hold.id, tokens=charge.tokens)

        self._settler.add(
            Reporting(
                hold.id,
                charge,
                terms,
                memory=self._memory,
                clock=self._clock,
                scripts=self._scripts,
                reported=reported,
            )
        )


class _Holding(AbstractAsyncContextManager[Hold]):
    """One use of a hold. Leaving waits for nothing, so that a cancelled task cannot leave without settling."""

    __slots__ = ("_claim", "_hold", "_ledger")

    def __init__(self, ledger: Ledger, claim: Claim) -> None:
        self._ledger = ledger
        self._claim = claim
        self._hold: Hold | None = None

    async def __aenter__(self) -> Hold:
        self._hold = await self._ledger.take(self._claim)
        return self._hold

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._hold is not None:
            self._ledger.end(self._hold)


_AGAIN = frozenset({EPOCH, WINDOWS, WAIT})
_SAY_COUNTERS = frozenset({HELD, SPENT, RATE, LARGE})


def _refusal(claim: Claim, reply: Reply) -> FirstdraftError:
    if reply.what == SPENT:
        return budget_spent(claim, reply.left[reply.detail], reply.now_s)
    if reply.what == RATE:
        return rate_limited(claim, reply.detail / 1000)
    if reply.what == LARGE:
        return larger_than_rate(claim)
    return StoreUnavailable(
        f"The budget of tenant {claim.tenant!r} cannot be checked now: the store has just come back. Try again.",
        retry_after_s=_RETRY_AFTER_S,
    )
