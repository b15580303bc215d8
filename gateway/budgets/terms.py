"""How a claim and its answer look to the scripts: their keys and arguments, and what their reply means."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from gateway.budgets.claim import MOST_AMOUNT, MOST_TOKENS, Claim, Left, applying
from gateway.budgets.limit import Limit, Rate
from gateway.inference.deployment import TOKENS_PER_PRICE
from gateway.store.client import PREFIX
from gateway.store.line import Argument

_KEPT = 4_096
"""Terms that are remembered; feature names come from clients, and may be many."""
_LONGEST_LOGGED = 64
_FIRST_LIMIT = 10
"""Where the limits begin in the reply of `hold.lua`; in that of `left.lua` it is 1."""


class Terms(msgspec.Struct, frozen=True):
    """What of a claim stays the same from request to request."""

    limits: tuple[Limit, ...]
    """Those that apply."""
    keys: tuple[str, ...]
    """The tenant's, in the order of `shared.lua`; one hash tag."""
    words: tuple[Argument, ...]
    """The limits, as arguments."""


class TermsOf:
    """Makes terms, and remembers them."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[tuple[Limit, ...], Terms]] = {}

    def __call__(self, tenant: str, limits: tuple[Limit, ...], feature: str) -> Terms:
        """The terms of one tenant's feature; of the limits that a newer policy gives they are made anew."""
        found = self._kept.get((tenant, feature))
        if found is not None and found[0] is limits:
            return found[1]
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        terms = _terms(tenant, applying(limits, feature))
        self._kept[tenant, feature] = (limits, terms)
        return terms


def tenant_keys(tenant: str) -> tuple[str, ...]:
    """The tenant's keys. Quoted, so that no name can leave its braces."""
    tag = f"{PREFIX}{{{quote(tenant, safe='', errors='surrogatepass')}}}:"
    return tuple(tag + part for part in ("ledger", "open", "leases", "usage", "closed"))


def limit_words(limit: Limit) -> tuple[Argument, ...]:
    """Field, window, unit, amount."""
    field = f"{limit.unit}:{limit.per}" if limit.feature is None else f"{limit.unit}:{limit.per}:{limit.feature}"
    return field, limit.per, limit.unit, min(limit.amount, MOST_AMOUNT)


def hold_words(claim: Claim, terms: Terms, hold_id: str, lease_ms: int, min_output_tokens: int) -> list[Argument]:
    """The arguments of `hold.lua`."""
    price, millionths = divmod(claim.price.output_nanousd, TOKENS_PER_PRICE)
    rate = claim.rate or Rate()
    wanted = min(claim.output_tokens, MOST_TOKENS)
    return [
        hold_id,
        lease_ms,
        min(claim.input_tokens, MOST_TOKENS),
        wanted,
        min(min_output_tokens, wanted),
        min(claim.input_cost_nanousd, MOST_AMOUNT),
        price,
        millionths,
        logged_feature(claim),
        rate.requests or 0,
        rate.tokens or 0,
        repr(rate.per_s),
        *terms.words,
    ]


def logged_feature(claim: Claim) -> str:
    """The feature as the usage log keeps it: it may come from a client, and be long."""
    return claim.feature[:_LONGEST_LOGGED]


class Reply(NamedTuple):
    """What `hold.lua` said."""

    what: str
    detail: int
    output_tokens: int
    epoch: bytes
    record: bytes
    now_s: int
    left: tuple[Left, ...]
    requests: Left | None
    """What the rate leaves, as a limit in all but name."""
    tokens: Left | None


def read_reply(answer: list[Any], terms: Terms, rate: Rate | None) -> Reply:
    """Understand the reply of `hold.lua`."""
    what, detail, output, epoch, record, now_s = answer[:6]
    return Reply(
        what=what.decode(),
        detail=detail,
        output_tokens=output,
        epoch=epoch,
        record=record,
        now_s=now_s,
        left=read_left(answer[_FIRST_LIMIT:], terms.limits, now_s),
        requests=_rate_left(rate.requests, answer[6], answer[7]) if rate is not None else None,
        tokens=_rate_left(rate.tokens, answer[8], answer[9]) if rate is not None else None,
    )


def read_left(pairs: list[int], limits: tuple[Limit, ...], now_s: int) -> tuple[Left, ...]:
    """Pairs of what is left and when the window ends, in the order of the limits."""
    return tuple(
        Left(limit, pairs[2 * index], max(0.0, float(pairs[2 * index + 1] - now_s)))
        for index, limit in enumerate(limits)
        if 2 * index < len(pairs)
    )


def _rate_left(amount: int | None, left: int, full_in_ms: int) -> Left | None:
    if amount is None or left < 0:
        return None
    return Left(Limit(amount=amount, unit="tokens", per="minute"), left, full_in_ms / 1000)


def _terms(tenant: str, limits: tuple[Limit, ...]) -> Terms:
    return Terms(limits, tenant_keys(tenant), tuple(word for limit in limits for word in limit_words(limit)))
