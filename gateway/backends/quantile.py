"""A quantile of what was measured lately, in constant space: counts in buckets whose bounds grow by 5 %.

A value falls into bucket ⌈log(value / 1 ms) / log(1.05)⌉, so that what is read off is at most 5 % above what was put in
(as in DDSketch: Masson, Rim & Lee, VLDB 2019). When `_HALVED_AT` values are in, all counts are halved: the newest few
hundred decide, and a deployment that becomes slower or faster is known as such after some hundred answers.
"""

from __future__ import annotations

import math

_LEAST_S = 0.001
_GROWTH = math.log(1.05)
_MOST_BUCKETS = 330
"""The last one holds all that took longer than 3 hours."""
_HALVED_AT = 1_000
_FORGOTTEN_UNDER = 0.25


class Quantile:
    """Of one stream of values, in seconds."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts: dict[int, float] = {}
        self._total = 0.0

    def add(self, seconds: float) -> None:
        """Another value."""
        bucket = math.ceil(math.log(max(seconds, _LEAST_S) / _LEAST_S) / _GROWTH)
        bucket = min(bucket, _MOST_BUCKETS)
        self._counts[bucket] = self._counts.get(bucket, 0.0) + 1
        self._total += 1
        if self._total >= _HALVED_AT:
            halves = {bucket: count / 2 for bucket, count in self._counts.items()}
            self._counts = {bucket: count for bucket, count in halves.items() if count >= _FORGOTTEN_UNDER}
            self._total = sum(self._counts.values())

    def at(self, share: float) -> float | None:
        """The value that `share` of them (0..1) do not exceed; None: too few were seen to say so.

        So few that less than one of them is expected above it: 20 for 0.95.
        """
        if self._total * (1 - share) < 1 - 1e-9:
            return None
        rest = self._total * share
        for bucket in sorted(self._counts):
            rest -= self._counts[bucket]
            if rest <= 1e-9:
                return _LEAST_S * math.exp(bucket * _GROWTH)
        return None
