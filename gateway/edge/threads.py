"""How many threads the edge decodes with: measured when the model is loaded, unless it was said."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

_MOST = 16
"""A small model's matrices are not worth more: threads then wait for each other."""
_MUST_SAVE = 0.1
"""Share of the time that more threads have to save: they take cores from others, and timing is noisy."""


def candidates(cores: int) -> list[int]:
    """1, 2, 4, …: never more than leaves the gateway a core."""
    most = max(1, min(cores - 1, _MOST))
    powers = [1 << power for power in range(most.bit_length())]
    return powers if powers[-1] == most else [*powers, most]


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def fastest(seconds: Mapping[int, float]) -> int:
    """Out of the times that so many threads took: the most threads whose every step up was worth it."""
    best = min(seconds)
    for threads in sorted(seconds):
        if seconds[threads] < seconds[best] * (1 - _MUST_SAVE):
            best = threads
    return best


def choose(wanted: int, time_s: Callable[[int], float]) -> int:
    """`wanted`, or with 0 what is fastest; `time_s` measures a number of threads."""
    if wanted:
        return wanted
    found = candidates(usable_cores())
    return found[0] if len(found) == 1 else fastest({threads: time_s(threads) for threads in found})
