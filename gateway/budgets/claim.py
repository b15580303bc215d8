"""What a request may cost at most, and what it was granted."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import msgspec

from gateway.budgets.limit import Limit, Rate
from gateway.inference.deployment import TOKENS_PER_PRICE, Price
from gateway.inference.usage import Usage

MOST_TOKENS = 1_000_000_000
"""More output tokens than this are not wanted by anybody; keeps the scripts' sums exact."""
MOST_AMOUNT = 2**53 - 1
"""The largest whole number that the store's Lua counts exactly: 9 million dollars in nano-dollars."""


_NANOUSD_PER_USD = 1_000_000_000


class Beside(msgspec.Struct, frozen=True):
    """The most that something may use that runs beside the answer: a draft that may stand for it."""

    tokens: int
    nanousd: int


class Claim(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The worst case of one request."""

    id: str
    """The request's, for the usage log. Need not be unique: each hold adds what makes it so."""
    tenant: str
    feature: str
    """Empty: none. Only limits of this feature, and those of no feature, apply."""
    key: str = ""
    """The API key's name; as with features."""
    limits: tuple[Limit, ...]
    rate: Rate | None
    input_tokens: int
    """The most that the input can have."""
    output_tokens: int
    """Wanted; what is granted may be less."""
    min_output_tokens: int = 1
    """With fewer the request is not worth sending: it is refused."""
    price: Price
    """Of the deployment that is asked first; a dearer one needs more (`Ledger.extend`)."""
    beside: Beside | None = None
    """What may be used beside the answer, and is in the worst case with it."""
    fail: Literal["closed", "open"] = "closed"
    """What happens without the store: refused, or granted within the local allowance."""

    @cached_property
    def fixed_tokens(self) -> int:
        """What is reserved however short the answer is limited."""
        return self.input_tokens + (0 if self.beside is None else self.beside.tokens)

    @cached_property
    def fixed_nanousd(self) -> int:
        """The input, each token at the dearest price that it may have, rounded up; and what is used beside."""
        cost = -(-self.input_tokens * self.price.input_worst_nanousd // TOKENS_PER_PRICE)
        return cost + (0 if self.beside is None else self.beside.nanousd)


class Left(msgspec.Struct, frozen=True):
    """What a limit has left, in its unit, with all that is held counted as spent."""

    limit: Limit
    left: int
    resets_in_s: float

    @property
    def is_worth_a_warning(self) -> bool:
        """So much is used that the tenant wants to be warned."""
        warn_at, amount = self.limit.warn_at, self.limit.amount
        return warn_at is not None and amount - self.left >= warn_at * amount


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What is booked in the end."""

    tokens: int
    nanousd: int
    input_tokens: int
    output_tokens: int
    estimated: bool


class Hold:
    """What a claim was granted. Whoever has it says what was used; leaving its context books that."""

    __slots__ = ("_charge", "_rates", "claim", "id", "is_limited", "left", "output_tokens", "reserved", "warned")

    def __init__(
        self,
        *,
        hold_id: str,
        claim: Claim,
        output_tokens: int,
        reserved: Charge,
        left: tuple[Left, ...] = (),
        is_limited: bool = False,
        rates: tuple[Left | None, Left | None] = (None, None),
    ) -> None:
        self.id = hold_id
        self.claim = claim
        self.output_tokens = output_tokens
        """The most output tokens that the backend may be asked for."""
        self.reserved = reserved
        """What is booked when nobody says what was used."""
        self.left = left
        """After this hold, in the order of the tenant's limits that apply."""
        self.is_limited = is_limited or bool(left)
        """A limit counts its tokens, be it from the store or from the local allowance."""
        self.warned = tuple([entry for entry in left if entry.is_worth_a_warning])
        """The limits of which so much is used that the tenant wants to be warned."""
        self._rates = rates
        self._charge: Charge | None = None

    @property
    def headers(self) -> dict[str, str]:
        """`x-ratelimit-*` and `x-firstdraft-budget-warning` for the response; empty where nothing limits."""
        headers = grant_headers(self.left, *self._rates)
        if warned := self.warned:
            headers["x-firstdraft-budget-warning"] = "; ".join(describe_used(entry) for entry in warned)
        return headers

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
        return self.reserved if self._charge is None else self._charge


def applying(limits: tuple[Limit, ...], feature: str, key: str = "") -> tuple[Limit, ...]:
    """The limits that count for a feature and a key; of two that measure the same thing only the smaller."""
    smallest: dict[tuple[str, str, str | None, str | None], Limit] = {}
    for limit in limits:
        if limit.feature in {None, feature} and limit.key in {None, key}:
            same = limit.same
            if same not in smallest or limit.amount < smallest[same].amount:
                smallest[same] = limit
    return tuple(smallest.values())


def worst_case(claim: Claim, output_tokens: int) -> Charge:
    """What `output_tokens` of answer cost at most: what the scripts reserve, to the nano-dollar."""
    output_cost = -(-output_tokens * claim.price.output_worst_nanousd // TOKENS_PER_PRICE)
    return Charge(
        tokens=claim.fixed_tokens + output_tokens,
        nanousd=claim.fixed_nanousd + output_cost,
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


def describe_used(entry: Left) -> str:
    """`83% of 2,000,000 tokens per day`, with the feature's or the key's name; ASCII, for a header."""
    limit = entry.limit
    share = (limit.amount - entry.left) * 100 // limit.amount
    return f"{share}% of {describe(limit)}"


def describe(limit: Limit) -> str:
    """`2,000,000 tokens per day for feature 'chat'`."""
    of_feature = f" for feature {limit.feature!r}" if limit.feature is not None else ""
    of_key = f" for key {limit.key!r}" if limit.key is not None else ""
    window = f"in {limit.per.removeprefix('rolling ')}" if limit.rolling_s else f"per {limit.per}"
    return f"{amount_text(limit, limit.amount)} {window}{of_feature}{of_key}"


def amount_text(limit: Limit, amount: int) -> str:
    """`1,500 tokens` or `0.25 USD`."""
    if limit.unit == "tokens":
        return f"{amount:,} tokens"
    dollars = f"{amount / _NANOUSD_PER_USD:,.9f}".rstrip("0")
    whole, _, cents = dollars.partition(".")
    return f"{whole}.{cents:0<2} USD"


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `12ms`, `1s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
