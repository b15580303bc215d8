"""What a tenant with `fail: open` may use while the store is gone.

A twentieth of each limit, for each gateway process, until it has been reported to the store; and never so much that,
with what the store said last, more than the limit and a twentieth would be spent: however often the store goes and
comes, each process spends its twentieth beyond the limit once. What the ledger guarantees is then
spent ≤ limit + allowance × processes. Rates are not enforced meanwhile.
"""

from __future__ import annotations

from collections import Counter

from gateway.budgets.claim import Charge, Claim, worst_case
from gateway.budgets.limit import Limit
from gateway.errors import StoreUnavailable

SHARE = 0.05
"""Of each limit's amount."""
_RETRY_AFTER_S = 2.0


class Allowance:
    """How much was granted without the store, and not reported to it yet: per tenant and limit."""

    def __init__(self) -> None:
        self._used: Counter[tuple[str, Limit]] = Counter()

    def take(self, claim: Claim, limits: tuple[Limit, ...], spent: tuple[int, ...]) -> int:
        """Take the worst case of a claim, or of as much output as the allowance leaves; returns the output tokens.

        `spent` is what the store said last of each limit, 0 where it said nothing.

        Raises:
            StoreUnavailable: the allowance does not hold even the fewest output tokens.
        """
        output = claim.output_tokens
        for limit, known in zip(limits, spent, strict=True):
            output = min(output, _fitting(claim, limit, self._room(claim.tenant, limit, known)))
        if output < claim.min_output_tokens:
            raise StoreUnavailable(
                f"Budgets cannot be checked now, and what tenant {claim.tenant} may use meanwhile "
                f"({SHARE:.0%} of each limit) is used up. Try again later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.change(claim.tenant, limits, worst_case(claim, output), 1)
        return output

    def extend(
        self, tenant: str, limits: tuple[Limit, ...], spent: tuple[int, ...], *, before: Charge, after: Charge
    ) -> bool:
        """Take what `after` is more than `before` as well; False, and nothing taken, where it does not fit."""
        for limit, known in zip(limits, spent, strict=True):
            more = after.tokens - before.tokens if limit.unit == "tokens" else after.nanousd - before.nanousd
            if more > self._room(tenant, limit, known):
                return False
        self.change(tenant, limits, before, -1)
        self.change(tenant, limits, after, 1)
        return True

    def change(self, tenant: str, limits: tuple[Limit, ...], charge: Charge, sign: int) -> None:
        """Add a charge (`sign` 1), or take it off because it was settled or reported (-1)."""
        for limit in limits:
            amount = charge.tokens if limit.unit == "tokens" else charge.nanousd
            self._used[tenant, limit] += sign * amount
            if self._used[tenant, limit] <= 0:
                del self._used[tenant, limit]

    def _room(self, tenant: str, limit: Limit, known: int) -> int:
        share = int(limit.amount * SHARE)
        return min(share, limit.amount + share - known) - self._used.get((tenant, limit), 0)

    def used(self, tenant: str, limit: Limit) -> int:
        """Granted and not reported, in the limit's unit."""
        return self._used.get((tenant, limit), 0)


def _fitting(claim: Claim, limit: Limit, room: int) -> int:
    """The most output tokens whose worst case fits into `room` of the limit's unit; below 0 when the input does not."""
    if limit.unit == "tokens":
        return room - claim.fixed_tokens
    money = room - claim.fixed_nanousd
    if money < 0:
        return -1
    price = claim.price.output_worst_nanousd
    return claim.output_tokens if price == 0 else money * 1_000_000 // price
