"""The KV cache's cells, counted exactly as llama.cpp's unified cache has them.

A cell holds one token at one position, for one or several sequences: copying a prefix adds a sequence to cells, and
takes none. A cell is free when its last sequence let it go. The scheduler plans with this ledger, so that a step
never finds the cache full.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Cells:
    """Which sequence holds which cells, out of `total`."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = list(range(total - 1, -1, -1))
        self._holders = np.zeros(total, dtype=np.int32)
        self._held: dict[int, list[int]] = {}

    @property
    def free(self) -> int:
        return len(self._free)

    def length(self, sequence: int) -> int:
        """Tokens of this sequence."""
        return len(self._held.get(sequence, ()))

    def extend(self, sequence: int, tokens: int) -> None:
        """The sequence grows by so many tokens; there must be as many free cells."""
        if tokens > len(self._free):
            raise ValueError(f"{tokens} cells are wanted and {len(self._free)} are free")
        if tokens == 1:  # most often
            cell = self._free.pop()
            self._holders[cell] = 1
            self._held.setdefault(sequence, []).append(cell)
            return
        if tokens == 0:
            return
        taken = self._free[-tokens:]
        del self._free[-tokens:]
        self._holders[taken] = 1
        self._held.setdefault(sequence, []).extend(taken)

    def copy(self, source: int, target: int, length: int) -> None:
        """`target`, which must be empty, shares the first `length` cells of `source`."""
        shared = self._held.get(source, [])[:length]
        if len(shared) != length or self.length(target):
            raise ValueError(f"sequence {target} cannot take {length} cells of sequence {source}")
        self._holders[shared] += 1
        self._held[target] = shared

    def trim(self, sequence: int, length: int) -> None:
        """The sequence keeps its first `length` tokens."""
        held = self._held.get(sequence, [])
        dropped = held[length:]
        if dropped:
            self._holders[dropped] -= 1
            self._free.extend(cell for cell in dropped if self._holders[cell] == 0)
            del held[length:]
        if not held:
            self._held.pop(sequence, None)

    def gained_by_dropping(self, sequence: int) -> int:
        """How many cells would be free if this sequence were gone."""
        held = self._held.get(sequence, [])
        return int(np.count_nonzero(self._holders[held] == 1)) if held else 0

    def used_by(self, sequences: list[int]) -> int:
        """Distinct cells of these sequences."""
        used: npt.NDArray[np.bool_] = np.zeros(self.total, dtype=np.bool_)
        for sequence in sequences:
            used[self._held.get(sequence, [])] = True
        return int(used.sum())
