"""How many rows to hand to llama.cpp at once.

More rows in one call are not always faster: the kernels for a few rows can be slower than as many calls with one row
(Q8_0 on AVX-512, one thread: one row 7.5 ms, two 27 ms, four 40 ms, eight 48 ms). Which numbers are slow depends on
processor and format, so it is measured when the model is loaded, and small batches are cut to what is fastest.
"""

from __future__ import annotations

from collections.abc import Mapping

MEASURED_ROWS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Batch sizes to time; between them, time is taken to be linear. Larger batches are never cut."""
_CUT_MUST_SAVE = 0.05
"""Share of the time that a cut has to save: timing is noisy."""


def best_groups(seconds: Mapping[int, float]) -> list[tuple[int, ...]]:
    """For 0, 1, … rows, up to the most that was timed: the sizes of the calls that together take the least time."""
    known = sorted(seconds)
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for rows in range(1, known[-1] + 1):
        whole = _between(seconds, known, rows)
        cuts = [
            (best[rows - first][0] + best[first][0], best[rows - first][1] + best[first][1])
            for first in range(1, rows // 2 + 1)
        ]
        cut_s, cut = min(cuts, default=(whole, (rows,)))
        best.append((cut_s, cut) if cut_s < whole * (1 - _CUT_MUST_SAVE) else (whole, (rows,)))
    return [sizes for _, sizes in best]


def _between(seconds: Mapping[int, float], known: list[int], rows: int) -> float:
    lower = max(size for size in known if size <= rows)
    upper = min(size for size in known if size >= rows)
    if lower == upper:
        return seconds[rows]
    share = (rows - lower) / (upper - lower)
    return seconds[lower] + share * (seconds[upper] - seconds[lower])
