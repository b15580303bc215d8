"""Sequences that are kept after their request ended, so that a prompt which begins alike is not read again.

Least recently used first out. A sequence that begins like a longer one of the same domain is not kept beside it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


def common_length(left: list[int], right: list[int]) -> int:
    """How many tokens both begin with. O(n) in C for equal lists, O(n log n) otherwise."""
    high = min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    low = 0
    while low < high - 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a kept sequence holds."""

    sequence: int
    domain: str
    tokens: list[int]


class Prefixes:
    """The kept sequences, oldest use first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Prefix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def sequences(self) -> list[int]:
        return list(self._kept)

    def keep(self, prefix: Prefix) -> list[int]:
        """Keeps it as the most recent. Returns the sequences that are no longer needed: maybe its own."""
        needless: list[int] = []
        for other in list(self._kept.values()):
            if other.domain != prefix.domain:
                continue
            common = common_length(other.tokens, prefix.tokens)
            if common == len(prefix.tokens):
                self._kept.move_to_end(other.sequence)
                return [*needless, prefix.sequence]
            if common == len(other.tokens):
                del self._kept[other.sequence]
                needless.append(other.sequence)
        self._kept[prefix.sequence] = prefix
        return needless

    def match(self, domain: str, tokens: list[int]) -> tuple[Prefix | None, int]:
        """The kept sequence that shares the most first tokens, and how many."""
        best: Prefix | None = None
        longest = 0
        for prefix in self._kept.values():
            if prefix.domain == domain and (common := common_length(prefix.tokens, tokens)) > longest:
                best, longest = prefix, common
        return best, longest

    def use(self, sequence: int) -> None:
        """It was useful just now."""
        self._kept.move_to_end(sequence)

    def drop(self, sequence: int) -> None:
        """It is kept no longer."""
        del self._kept[sequence]
