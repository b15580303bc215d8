"""What a tenant may spend, and how fast: the data that a ledger enforces."""

from __future__ import annotations

from typing import Literal

import msgspec

Window = Literal["minute", "hour", "day", "week", "month"]


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """At most `amount` of `unit` in each calendar window (UTC); of the whole tenant, or of one feature of it."""

    amount: int
    """Tokens (input and output together), or nano-dollars. Over 0."""
    unit: Literal["tokens", "nanousd"]
    per: Window
    feature: str | None = None


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """At most so many requests and tokens in `per_s` seconds, evenly (GCRA), with bursts up to the whole amount."""

    requests: int | None = None
    tokens: int | None = None
    per_s: float = 60.0
