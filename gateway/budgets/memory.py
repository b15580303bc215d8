"""What this gateway was told of the counters: so that a store that loses something can be told again.

For each counter the newest value, and where in the tenant's row of changes (`seq`) and in which epoch that was. See
`lua/shared.lua` for what is made of it.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from gateway.budgets.limit import Limit
from gateway.budgets.terms import Terms

_MOST_COUNTERS = 1_024
"""Of one tenant; policy changes leave old ones behind."""

_pack = msgspec.msgpack.Encoder().encode


class Told(msgspec.Struct, frozen=True):
    """A counter's newest value. `end_s`: its window's, Unix time."""

    epoch: str
    seq: int
    start_s: int
    spent: int
    end_s: int
    limit: Limit

    @property
    def till_s(self) -> int:
        """When nobody needs it any more, Unix time."""
        limit = self.limit
        return self.start_s + limit.bucket_s + limit.rolling_s if limit.rolling_s else self.end_s


class TenantMemory:
    """Of one tenant: its epoch (empty: never heard of), and the counters by their fields."""

    __slots__ = ("counters", "epoch", "heard_at_s")

    def __init__(self) -> None:
        self.epoch = ""
        self.counters: dict[str, Told] = {}
        self.heard_at_s = 0.0
        """When a counter was heard of last, in the monotonic clock's seconds."""

    def note(self, epoch: str, seq: int, terms: Terms, answer: list[Any], first: int) -> None:
        """Remember start, spent and end of each limit's window, from `first` on in a script's answer."""
        self.epoch = epoch
        self.heard_at_s = time.monotonic()
        counters = self.counters
        for field, limit in zip(terms.fields, terms.limits, strict=True):
            old = counters.get(field)
            if old is not None and old.seq > seq and old.epoch == epoch:  # answers may be understood out of turn
                first += 3
                continue
            counters[field] = Told(epoch, seq, answer[first], answer[first + 1], answer[first + 2], limit)
            first += 3
        if len(counters) > _MOST_COUNTERS:
            counters.clear()

    def note_spent(self, epoch: str, seq: int, terms: Terms, answer: list[Any], first: int) -> None:
        """Remember start and spent, where the answer has no ends; only of the windows that are known."""
        if epoch != self.epoch:
            return
        counters = self.counters
        for field in terms.fields:
            old = counters.get(field)
            if old is not None and old.start_s == answer[first] and old.seq <= seq:
                counters[field] = Told(epoch, seq, old.start_s, answer[first + 1], old.end_s, old.limit)
            first += 2

    def spent(self, terms: Terms, now_s: float) -> tuple[int, ...]:
        """What was told last of each limit; 0 where nothing was, or of a window that is over."""
        told = (self.counters.get(field) for field in terms.fields)
        return tuple(0 if last is None or last.till_s <= now_s else last.spent for last in told)

    def share_left(self, feature: str, now_s: float) -> float:
        """The smallest share, 0..1, that is left of the limits that apply to a feature; 1.0 where none is known."""
        smallest = 1.0
        for told in self.counters.values():
            limit = told.limit
            if limit.feature in {None, feature} and now_s < told.end_s:
                smallest = min(smallest, (limit.amount - told.spent) / limit.amount)
        return max(0.0, smallest)

    def to_tell(self, now_s: float) -> list[tuple[str, Told]]:
        """The counters whose windows are not over."""
        return [(field, told) for field, told in self.counters.items() if told.till_s > now_s]


class Memory:
    """Of all tenants that this gateway has asked for."""

    def __init__(self) -> None:
        self._tenants: dict[str, TenantMemory] = {}

    def of(self, tenant: str) -> TenantMemory:
        """A tenant's memory, empty at first."""
        found = self._tenants.get(tenant)
        if found is None:
            found = self._tenants[tenant] = TenantMemory()
        return found

    def known(self) -> dict[str, TenantMemory]:
        """The tenants of which something is known."""
        return {tenant: memory for tenant, memory in self._tenants.items() if memory.epoch}


def recall_words(epoch: str, counters: list[tuple[str, Told]]) -> bytes:
    """The argument of `recall.lua`."""
    rows = [(field, told.epoch, told.seq, told.start_s, told.spent, told.till_s) for field, told in counters]
    return _pack((epoch, *rows))
