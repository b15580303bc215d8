"""How a claim and its answer look to the scripts: their keys and arguments, and what their reply means."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from gateway.budgets.claim import MOST_AMOUNT, MOST_TOKENS, Claim, Left, applying
from gateway.budgets.limit import Limit, Rate
from gateway.budgets.windows import windows
from gateway.inference.deployment import TOKENS_PER_PRICE
from gateway.store.client import PREFIX

HELD, SPENT, RATE, LARGE, CLOSED, EPOCH, WINDOWS, WAIT = range(8)
"""What `hold.lua` says first."""

_KEPT = 4_096
"""Terms that are remembered; feature names come from clients, and may be many."""
_LONGEST_LOGGED = 64
FIRST_LIMIT: Final = 11
"""Where the limits begin in the reply of `hold.lua`."""

_pack = msgspec.msgpack.Encoder().encode


class Clock:
    """The store's clock, as far as it is known without asking: its last word, and how long ago that was."""

    __slots__ = ("_ahead_s",)

    def __init__(self) -> None:
        self._ahead_s = time.time() - time.monotonic()

    def note(self, now_ms: int) -> None:
        """What the store said just now."""
        self._ahead_s = now_ms / 1000 - time.monotonic()

    def now_s(self) -> float:
        """Unix time in seconds."""
        return time.monotonic() + self._ahead_s


class Terms:
    """What of a claim stays the same from request to request: the limits that apply, and how they are written."""

    __slots__ = ("_from_s", "_packed", "_to_s", "feature", "fields", "keys", "limits", "packed_fields", "tenant")

    def __init__(self, tenant: str, limits: tuple[Limit, ...], feature: str) -> None:
        self.tenant = tenant
        self.limits = limits
        self.keys = tenant_keys(tenant)
        self.fields = tuple(field_of(limit) for limit in limits)
        self.packed_fields = msgspec.Raw(_pack(self.fields))
        self.feature = readable(feature)[:_LONGEST_LOGGED]
        """As the usage log keeps it: it may come from a client, and be long."""
        self._packed = msgspec.Raw(b"")
        self._from_s, self._to_s = 0.0, 0.0

    def packed(self, now_s: float) -> msgspec.Raw:
        """The limits, as an argument that holds now and in the next window."""
        if not self._from_s <= now_s < self._to_s:
            self._write(int(now_s))
        return self._packed

    def _write(self, now_s: int) -> None:
        rows: list[tuple[str | int, ...]] = []
        self._from_s, self._to_s = float(now_s - now_s % 60), float("inf")
        for limit, field in zip(self.limits, self.fields, strict=True):
            amount = min(limit.amount, MOST_AMOUNT)
            if limit.rolling_s:
                rows.append((field, limit.unit, amount, limit.bucket_s, limit.rolling_s))
            else:
                start, following, after = windows(limit.per, limit.zone, now_s)
                rows.append((field, limit.unit, amount, start, following, after))
                self._from_s, self._to_s = max(self._from_s, start), min(self._to_s, following)
        self._packed = msgspec.Raw(_pack(rows))


class TermsOf:
    """Makes terms, and remembers them."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], tuple[tuple[Limit, ...], Terms]] = {}

    def __call__(self, tenant: str, limits: tuple[Limit, ...], feature: str, key: str = "") -> Terms:
        """The terms of one tenant's feature and key; of the limits that a newer policy gives they are made anew."""
        found = self._kept.get((tenant, feature, key))
        if found is not None and found[0] is limits:
            return found[1]
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        terms = Terms(tenant, applying(limits, feature, key), feature)
        self._kept[tenant, feature, key] = (limits, terms)
        return terms


def tenant_keys(tenant: str) -> tuple[str, ...]:
    """The tenant's keys. Quoted, so that no name can leave its braces."""
    tag = f"{PREFIX}{{{quote(tenant, safe='', errors='surrogatepass')}}}:"
    return tuple(tag + part for part in ("ledger", "open", "leases", "usage", "closed", "carried"))


def field_of(limit: Limit) -> str:
    """A limit's counter in the ledger."""
    unit, window, feature, key = limit.same
    return f"{unit}:{window}" + (f":{readable(feature)}" if feature else "") + (f":@{readable(key)}" if key else "")


def readable(text: str) -> str:
    """A name from a client, without what is no Unicode."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def hold_words(
    claim: Claim, terms: Terms, *, epoch: str, hold_id: str, lease_ms: int, fewest: int, now_s: float, server: str
) -> bytes:
    """The argument of `hold.lua`."""
    price, millionths = divmod(claim.price.output_worst_nanousd, TOKENS_PER_PRICE)
    rate = claim.rate
    wanted = min(claim.output_tokens, MOST_TOKENS)
    return _pack(
        (
            epoch,
            hold_id,
            lease_ms,
            min(claim.fixed_tokens, MOST_TOKENS),
            wanted,
            min(fewest, wanted),
            min(claim.fixed_nanousd, MOST_AMOUNT),
            price,
            millionths,
            terms.feature,
            0 if rate is None else rate.requests or 0,
            0 if rate is None else rate.tokens or 0,
            60.0 if rate is None else rate.per_s,
            int(claim.fail == "open"),
            server,
            terms.packed(now_s),
        )
    )


class Reply(NamedTuple):
    """What `hold.lua` said."""

    what: int
    detail: int
    output_tokens: int
    epoch: str
    record: bytes
    now_s: float
    seq: int
    left: tuple[Left, ...]
    requests: Left | None
    """What the rate leaves, as a limit in all but name."""
    tokens: Left | None


def read_reply(answer: list[Any], terms: Terms, rate: Rate | None) -> Reply:
    """Understand the reply of `hold.lua`."""
    what, detail, output, epoch, record, now_ms, seq = answer[:7]
    now_s = now_ms / 1000
    return Reply(
        what=what,
        detail=detail,
        output_tokens=output,
        epoch=epoch.decode(),
        record=record,
        now_s=now_s,
        seq=seq,
        left=read_left(answer, FIRST_LIMIT, terms.limits, now_s),
        requests=_rate_left(rate.requests, answer[7], answer[8]) if rate is not None else None,
        tokens=_rate_left(rate.tokens, answer[9], answer[10]) if rate is not None else None,
    )


def read_left(answer: list[Any], first: int, limits: tuple[Limit, ...], now_s: float) -> tuple[Left, ...]:
    """From start, spent and end of each limit's window, in their order; from `first` on, if they are there."""
    if len(answer) == first:
        return ()
    return tuple(
        [
            Left(limit, max(0, limit.amount - answer[at + 1]), max(0.0, answer[at + 2] - now_s))
            for at, limit in zip(range(first, len(answer), 3), limits, strict=True)
        ]
    )


def _rate_left(amount: int | None, left: int, full_in_ms: int) -> Left | None:
    if amount is None or left < 0:
        return None
    return Left(Limit(amount=amount, unit="tokens", per="minute"), left, full_in_ms / 1000)
