"""Of each deployment's scores, how many let a draft stand lately: what the next score is worth."""

from __future__ import annotations

import math
from collections.abc import Callable

_START = 0.5
"""Taken for the share until there are scores, and again long after the last one: what changes has to be seen."""
_WEIGHT = 0.1
_HALF_LIFE_S = 600.0


class Kept:
    """A moving average for each deployment. One for each worker.

    Args:
        clock: seconds that only grow, as `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._shares: dict[str, tuple[float, float]] = {}

    def share(self, deployment: str) -> float:
        """0..1: how likely the next score lets the draft stand."""
        found = self._shares.get(deployment)
        if found is None:
            return _START
        share, at = found
        return _START + (share - _START) * math.pow(0.5, (self._clock() - at) / _HALF_LIFE_S)

    def note(self, deployment: str, *, kept: bool) -> None:
        """A draft was scored."""
        share = self.share(deployment)
        self._shares[deployment] = (share + _WEIGHT * (kept - share), self._clock())
