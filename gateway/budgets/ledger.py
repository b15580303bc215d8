"""The ledger: nobody spends more than its limits, whatever ends in the middle.

The life of a hold, as a gateway sees it (as the store sees it: `lua/shared.lua`):

    hold() entered ──hold.lua──> open ──left, in any way──> queued ──settle.lua──> booked
         │                        └── every third of a lease: renew.lua
         ├── refused: BudgetSpent, RateLimited; nothing was taken
         ├── not heard (store gone, task cancelled): given up by its id, should it have been taken all the same
         └── store gone and `fail: open`: granted by `allowance`, and reported with book.lua when the store is back

A gateway that dies settles nothing: its leases end, and each of its holds is booked at what it reserved, by the next
hold of that tenant or by any gateway's reaper. A settlement that comes after that changes nothing: too much is booked
then, never too little.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

import structlog

from gateway.budgets.allowance import Allowance
from gateway.budgets.claim import Charge, Claim, Hold, Left, grant_headers, worst_case
from gateway.budgets.leases import Leases, OpenHold
from gateway.budgets.limit import Limit
from gateway.budgets.refusal import budget_spent, larger_than_rate, rate_limited
from gateway.budgets.settler import Settlement, Settler
from gateway.budgets.shares import Shares
from gateway.budgets.terms import (
    Reply,
    Terms,
    TermsOf,
    hold_words,
    limit_words,
    logged_feature,
    read_left,
    read_reply,
    tenant_keys,
)
from gateway.errors import FirstdraftError, StoreUnavailable
from gateway.store.client import ScriptCall, Store
from gateway.store.line import Argument
from gateway.store.script import Script

__all__ = ["Claim", "Hold", "Ledger", "Left"]

_SETTLE_BEFORE_REFUSING_S = 0.25
_FLUSH_AT_EXIT_S = 3.0
_RETRY_AFTER_S = 1.0


class Ledger:
    """Takes holds and settles them; an async context manager. One for all requests of a gateway process.

    Args:
        store: where all gateways count together.
        lease_s: how long a hold outlives its gateway, seconds.
    """

    def __init__(self, store: Store, *, lease_s: float = 60.0) -> None:
        self._store = store
        self._lease_ms = int(lease_s * 1000)
        self._scripts = {
            name: Script.read("gateway.budgets", name, "lua/shared.lua", f"lua/{name}.lua")
            for name in ("hold", "settle", "renew", "expire", "left", "book")
        }
        self._terms = TermsOf()
        self._shares = Shares()
        self._allowance = Allowance()
        self._settler = Settler(store)
        self._leases = Leases(store, lease_s, renew=self._scripts["renew"], expire=self._scripts["expire"])
        self._local: dict[str, tuple[Claim, Hold]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        # Ids are the gateway's own: two requests that a client gave one id must not pass for one.
        self._ids = (f"{secrets.token_hex(6)}-{number:x}" for number in itertools.count())

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._settler.run(), name="ledger: settle"),
            asyncio.create_task(self._leases.renew(), name="ledger: renew leases"),
            asyncio.create_task(self._leases.reap(), name="ledger: reap"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for entry in self._leases.all():
            self._settle(entry)
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
        """What each of these limits leaves now, held amounts counted as spent. Raises StoreUnavailable."""
        if not limits:
            return ()
        words: list[Argument] = [word for limit in limits for word in limit_words(limit)]
        answer = await self._store.script(self._scripts["left"], tenant_keys(tenant), words)
        left = read_left(answer[1:], limits, answer[0])
        self._shares.note(tenant, left)
        return left

    def share_left(self, tenant: str, feature: str = "") -> float:
        """The smallest share, 0..1, that the last answers left of the tenant's limits and the feature's; no I/O.

        1.0 where nothing is known.
        """
        return self._shares.smallest(tenant, feature)

    @property
    def open_holds(self) -> int:
        """Taken and not handed over to settlement, in this process."""
        return len(self._leases) + len(self._local)

    # --- taking -----------------------------------------------------------------------------------------------

    async def take(self, claim: Claim) -> Hold:
        """Reserve; whoever calls it must call `end` with the hold. `hold` does both."""
        terms = self._terms(claim.tenant, claim.limits, claim.feature)
        rated = claim.rate is not None and bool(claim.rate.requests or claim.rate.tokens)
        hold_id = f"{claim.id}.{next(self._ids)}"
        if not terms.limits and not rated:
            return Hold(hold_id=hold_id, output_tokens=claim.output_tokens, reserved=worst_case(claim, 0))
        sent = self._store.healthy
        try:
            reply = await self._ask(claim, terms, hold_id)
        except (StoreUnavailable, asyncio.CancelledError) as trouble:
            if sent:
                self._settler.add(Settlement(claim.tenant, self._settle_call(hold_id, terms.keys, b"", b"", _NOTHING)))
            if isinstance(trouble, StoreUnavailable):
                return self._without_store(claim, terms, hold_id, trouble)
            raise
        self._shares.note(claim.tenant, reply.left)
        if reply.what != "held":
            raise _refusal(claim, reply)
        hold = Hold(
            hold_id=hold_id,
            output_tokens=reply.output_tokens,
            reserved=worst_case(claim, reply.output_tokens),
            headers=grant_headers(reply.left, reply.requests, reply.tokens),
            left=reply.left,
        )
        self._leases.add(OpenHold(hold, claim.tenant, terms.keys, reply.epoch, reply.record))
        return hold

    def end(self, hold: Hold) -> None:
        """Hand a hold over to settlement; never waits. A second time does nothing."""
        entry = self._leases.take(hold.id)
        if entry is not None:
            self._settle(entry)
        else:
            self._settle_local(hold.id)

    async def _ask(self, claim: Claim, terms: Terms, hold_id: str) -> Reply:
        """Ask the store. While this tenant's own settlements are on their way, less than all is no answer yet."""
        unsettled = self._settler.waiting(claim.tenant) > 0
        fewest = claim.output_tokens if unsettled else claim.min_output_tokens
        reply = await self._run_hold(claim, terms, hold_id, fewest)
        if unsettled and reply.what != "held":
            await self._settler.flush(_SETTLE_BEFORE_REFUSING_S)
            reply = await self._run_hold(claim, terms, hold_id, claim.min_output_tokens)
        return reply

    async def _run_hold(self, claim: Claim, terms: Terms, hold_id: str, fewest: int) -> Reply:
        words = hold_words(claim, terms, hold_id, self._lease_ms, fewest)
        return read_reply(await self._store.script(self._scripts["hold"], terms.keys, words), terms, claim.rate)

    def _without_store(self, claim: Claim, terms: Terms, hold_id: str, trouble: StoreUnavailable) -> Hold:
        if claim.fail == "closed":
            raise StoreUnavailable(
                f"The budget of tenant {claim.tenant!r} cannot be checked now. Try again later.",
                retry_after_s=_RETRY_AFTER_S,
            ) from trouble
        output = self._allowance.take(claim, terms.limits)
        hold = Hold(hold_id=f"{hold_id}.open", output_tokens=output, reserved=worst_case(claim, output))
        self._local[hold.id] = (claim, hold)
        structlog.get_logger().warning("granted_without_store", tenant=claim.tenant, hold=hold.id)
        return hold

    # --- settling ---------------------------------------------------------------------------------------------

    def _settle(self, entry: OpenHold) -> None:
        call = self._settle_call(entry.hold.id, entry.keys, entry.epoch, entry.record, entry.hold.charged)
        self._settler.add(Settlement(entry.tenant, call))

    def _settle_call(
        self, hold_id: str, keys: tuple[str, ...], epoch: bytes, record: bytes, charge: Charge
    ) -> ScriptCall:
        return ScriptCall(self._scripts["settle"], keys, [hold_id, epoch, record, *_charge_words(charge)])

    def _settle_local(self, hold_id: str) -> None:
        """Report what was granted without the store; until the store has it, it is part of the allowance."""
        claim, hold = self._local.pop(hold_id, (None, None))
        if claim is None or hold is None:
            return
        terms = self._terms(claim.tenant, claim.limits, claim.feature)
        charge = hold.charged
        self._allowance.change(claim.tenant, terms.limits, worst_case(claim, hold.output_tokens), -1)
        self._allowance.change(claim.tenant, terms.limits, charge, 1)

        def reported() -> None:
            self._allowance.change(claim.tenant, terms.limits, charge, -1)
            structlog.get_logger().info("reported_to_store", tenant=claim.tenant, hold=hold.id, tokens=charge.tokens)

        words: list[Argument] = [hold.id, *_charge_words(charge), logged_feature(claim), *terms.words]
        self._settler.add(Settlement(claim.tenant, ScriptCall(self._scripts["book"], terms.keys, words), reported))


class _Holding(AbstractAsyncContextManager[Hold]):
    """One use of a hold. Leaving waits for nothing, so that a cancelled task cannot leave without settling."""

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


_NOTHING = Charge(tokens=0, nanousd=0, input_tokens=0, output_tokens=0, estimated=False)


def _charge_words(charge: Charge) -> tuple[Argument, ...]:
    return charge.tokens, charge.nanousd, charge.input_tokens, charge.output_tokens, int(charge.estimated)


def _refusal(claim: Claim, reply: Reply) -> FirstdraftError:
    match reply.what:
        case "spent":
            return budget_spent(claim, reply.left[reply.detail], reply.now_s)
        case "rate":
            return rate_limited(claim, reply.detail / 1000)
        case "large":
            return larger_than_rate(claim)
        case _:
            return StoreUnavailable(f"The budget of tenant {claim.tenant!r} cannot be checked now: hold {reply.what}.")
