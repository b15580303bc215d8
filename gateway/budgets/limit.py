"""What a tenant may spend, and how fast: the data that a ledger enforces."""

from __future__ import annotations

from typing import Literal

import msgspec

Window = Literal["minute", "hour", "day", "week", "month"]

BUCKETS = 24
"""Parts of a rolling window: what is used counts for the whole window and at most a twenty-fourth of it longer."""


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """At most `amount` of `unit` in each window; of the whole tenant, or of one feature or API key of it.

    A calendar window begins when the calendar in `zone` says so (weeks on Monday). A rolling one is the time before
    now: with `rolling_s` over 0, `per` is only its name.
    """

    amount: int
    """Tokens (input and output together), or nano-dollars. Over 0."""
    unit: Literal["tokens", "nanousd"]
    per: str
    """A `Window`, or `rolling 24h`."""
    feature: str | None = None
    key: str | None = None
    """The name of an API key."""
    rolling_s: int = 0
    """Seconds; 0: a calendar window."""
    zone: str = "UTC"
    """A time zone of the IANA database."""
    warn_at: float | None = None
    """From this share (0..1) on, used or held, the client is warned."""

    @property
    def same(self) -> tuple[str, str, str | None, str | None]:
        """What it measures: of two limits that measure the same, the smaller one is the limit."""
        window = f"rolling-{self.rolling_s}" if self.rolling_s else self.per
        return self.unit, window, self.feature, self.key

    @property
    def bucket_s(self) -> int:
        """Seconds in a part of a rolling window."""
        return max(1, self.rolling_s // BUCKETS)


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """At most so many requests and tokens in `per_s` seconds, evenly (GCRA), with bursts up to the whole amount."""

    requests: int | None = None
    tokens: int | None = None
    per_s: float = 60.0
