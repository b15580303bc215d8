"""What a request may cost at most, and what it was granted."""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.budgets.limit import Limit, Rate
from gateway.inference.deployment import Price
from gateway.inference.usage import Usage

MOST_TOKENS = 1_000_000_000
"""More output tokens than this are not wanted by anybody; keeps the scripts' sums exact."""
MOST_AMOUNT = 2**53 - 1
"""The largest whole number that the store's Lua counts exactly: 9 million dollars in nano-dollars."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The worst case of one request."""

    id: str
    """The request's, for the usage log. Need not be unique: each hold adds what makes it so."""
    tenant: str
    feature: str
    """Empty: none. Only limits of this feature, and those of no feature, apply."""
    limits: tuple[Limit, ...]
    rate: Rate | None
    input_tokens: int
    """The most that the input can have."""
    output_tokens: int
    """Wanted; what is granted may be less."""
    min_output_tokens: int = 1
    """With fewer the request is not worth sending: it is refused."""
    price: Price
    """Of the dearest deployment that may answer."""
    fail: Literal["closed", "open"] = "closed"
    """What happens without the store: refused, or granted within the local allowance."""

    @property
    def input_cost_nanousd(self) -> int:
        """The input at the price of uncached tokens, or of cached ones should those cost more; rounded up."""
        cached = self.input_tokens if self.price.cached_input_nanousd > self.price.input_nanousd else 0
        return self.price.cost_nanousd(input_tokens=self.input_tokens, output_tokens=0, cached_input_tokens=cached)


class Left(msgspec.Struct, frozen=True):
    """What a limit has left, in its unit, with all that is held counted as spent."""

    limit: Limit
    left: int
    resets_in_s: float


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What is booked in the end."""

    tokens: int
    nanousd: int
    input_tokens: int
    output_tokens: int
    estimated: bool


class Hold:
    """What a claim was granted. Whoever has it says what was used; leaving its context books that."""

    __slots__ = ("_charge", "_reserved", "headers", "id", "left", "output_tokens")

    def __init__(
        self,
        *,
        hold_id: str,
        output_tokens: int,
        reserved: Charge,
        headers: dict[str, str] | None = None,
        left: tuple[Left, ...] = (),
    ) -> None:
        self.id = hold_id
        self.output_tokens = output_tokens
        """The most output tokens that the backend may be asked for."""
        self.headers = headers or {}
        """`x-ratelimit-*` for the response; empty where nothing limits."""
        self.left = left
        """After this hold, in the order of the tenant's limits that apply."""
        self._reserved = reserved
        self._charge: Charge | None = None

    def charge(self, usage: Usage, cost_nanousd: int) -> None:
        """Say what was used; the last word counts. It is booked as it is, also when it is more than was held."""
        self._charge = Charge(
            tokens=max(0, usage.total_tokens),
            nanousd=max(0, cost_nanousd),
            input_tokens=max(0, usage.input_tokens),
            output_tokens=max(0, usage.output_tokens),
            estimated=usage.estimated,
        )

    def release(self) -> None:
        """Nothing was used."""
        self._charge = Charge(tokens=0, nanousd=0, input_tokens=0, output_tokens=0, estimated=False)

    @property
    def charged(self) -> Charge:
        """What is to be booked: the charge, or all that was reserved while nobody said what was used."""
        return self._reserved if self._charge is None else self._charge


def applying(limits: tuple[Limit, ...], feature: str) -> tuple[Limit, ...]:
    """The limits that count for a feature; of two that measure the same thing only the smaller."""
    smallest: dict[tuple[str, str, str | None], Limit] = {}
    for limit in limits:
        if limit.feature is None or limit.feature == feature:
            same = (limit.unit, limit.per, limit.feature)
            if same not in smallest or limit.amount < smallest[same].amount:
                smallest[same] = limit
    return tuple(smallest.values())


def worst_case(claim: Claim, output_tokens: int) -> Charge:
    """What `output_tokens` of answer cost at most: what the scripts reserve, to the nano-dollar."""
    output_cost = claim.price.cost_nanousd(input_tokens=0, output_tokens=output_tokens)
    return Charge(
        tokens=claim.input_tokens + output_tokens,
        nanousd=claim.input_cost_nanousd + output_cost,
        input_tokens=claim.input_tokens,
        output_tokens=output_tokens,
        estimated=True,
    )


def grant_headers(left: tuple[Left, ...], requests: Left | None, tokens: Left | None) -> dict[str, str]:
    """OpenAI's `x-ratelimit-*` headers: of the rate where there is one, for tokens else of the tightest limit.

    `requests` and `tokens` are what the rate leaves, as limits in all but name.
    """
    if tokens is None:
        budgets = [entry for entry in left if entry.limit.unit == "tokens"]
        tokens = min(budgets, key=lambda entry: entry.left, default=None)
    headers = {}
    for kind, entry in (("requests", requests), ("tokens", tokens)):
        if entry is not None:
            headers[f"x-ratelimit-limit-{kind}"] = str(entry.limit.amount)
            headers[f"x-ratelimit-remaining-{kind}"] = str(entry.left)
            headers[f"x-ratelimit-reset-{kind}"] = _duration(entry.resets_in_s)
    return headers


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `12ms`, `1s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
