"""Why a claim was refused, in sentences that tell a tenant what to do."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.budgets.claim import Claim, Left, amount_text, describe, worst_case
from gateway.errors import BudgetSpent, RateLimited


def budget_spent(claim: Claim, short: Left, now_s: float) -> BudgetSpent:
    """`short` is the limit that leaves too little; `now_s` is Unix time by the store's clock."""
    limit = short.limit
    needed = worst_case(claim, claim.min_output_tokens)
    resets = datetime.fromtimestamp(round(now_s + short.resets_in_s), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return BudgetSpent(
        f"Tenant {claim.tenant!r} has spent its budget of {describe(limit)}: "
        f"{amount_text(limit, short.left)} left, this request needs at least "
        f"{amount_text(limit, needed.tokens if limit.unit == 'tokens' else needed.nanousd)}. "
        f"{'Some of it is free again' if limit.rolling_s else 'The budget resets'} at {resets}.",
    )


def rate_limited(claim: Claim, wait_s: float) -> RateLimited:
    """It comes too fast, and may come in `wait_s` seconds."""
    return RateLimited(
        f"Tenant {claim.tenant!r} sends faster than its rate of {_rate(claim)}. "
        f"Try again in {max(0.001, wait_s):.3g} s.",
        retry_after_s=wait_s,
    )


def larger_than_rate(claim: Claim) -> RateLimited:
    """It asks for more than the whole rate: no wait would help."""
    return RateLimited(
        f"This request may need {claim.fixed_tokens + claim.min_output_tokens:,} tokens, more than tenant "
        f"{claim.tenant!r} may use at once ({_rate(claim)}). Make it shorter.",
    )


def _rate(claim: Claim) -> str:
    if claim.rate is None:
        return "nothing"
    parts = []
    if claim.rate.requests is not None:
        parts.append(f"{claim.rate.requests:,} requests")
    if claim.rate.tokens is not None:
        parts.append(f"{claim.rate.tokens:,} tokens")
    return f"{' and '.join(parts)} in {claim.rate.per_s:g} s"
