"""What a route says about caching: pure data, so that `policy` can hold it without reaching the store."""

from __future__ import annotations

import msgspec


class CacheRule(msgspec.Struct, frozen=True, kw_only=True):
    """Compiled from a route's `cache:`."""

    ttl_s: float
    """How long an answer is fresh, in seconds, over 0."""
    stale_s: float = 0.0
    """How long after that it may still be given while a fresh one is fetched, in seconds."""
    shared: bool = False
    """An answer given to one tenant may be given to another."""
    any_temperature: bool = False
    """Cache although the temperature is not 0."""
    charge: float = 0.0
    """The share of an answer's tokens and cost that is booked when it is given again, 0..1."""
