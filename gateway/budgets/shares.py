"""What share of its limits each tenant had left when the store was last asked: for routing, which asks nobody."""

from __future__ import annotations

import time

from gateway.budgets.claim import Left
from gateway.budgets.limit import Limit

_MOST_LIMITS = 256
"""Remembered for each tenant; policy changes leave old ones behind."""


class Shares:
    """The last known shares. Bounded by the policy's tenants and their limits."""

    def __init__(self) -> None:
        self._known: dict[str, dict[Limit, tuple[float, float]]] = {}

    def note(self, tenant: str, left: tuple[Left, ...]) -> None:
        """Remember what the store said, until the windows end."""
        if not left:
            return
        known = self._known.setdefault(tenant, {})
        if len(known) > _MOST_LIMITS:
            known.clear()
        now = time.monotonic()
        for entry in left:
            known[entry.limit] = (min(1.0, entry.left / entry.limit.amount), now + entry.resets_in_s)

    def smallest(self, tenant: str, feature: str) -> float:
        """The smallest share of the limits that apply to a feature; 1.0 where none is known."""
        known = self._known.get(tenant)
        if known is None:
            return 1.0
        now = time.monotonic()
        shares = (
            share
            for limit, (share, ends) in known.items()
            if now < ends and (limit.feature is None or limit.feature == feature)
        )
        return min(shares, default=1.0)
