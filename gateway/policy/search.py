"""A request for which several conditions have wanted outcomes, or the proof that there is none.

Backtracking over the aspects of the space: a value is chosen for one aspect at a time, and each choice is given up as
soon as one condition can no longer have an outcome that is wanted. When no choice is left, no request is left either,
however many classes of requests there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from gateway.policy.evaluate import Value
from gateway.policy.outcomes import ERROR, FALSE, FREE, TRUE, Formula
from gateway.policy.space import Aspect, Space

_DEEPEST = 400
"""Aspects that are chosen together; each is a frame on Python's stack."""


class TooLarge(Exception):
    """The search was given up before it was through: nothing is proved."""


class Effort:
    """How many choices may still be tried, over all searches that share this."""

    def __init__(self, most: int) -> None:
        self.spent = 0
        self._most = most

    def spend(self) -> None:
        """Count one choice. Raises TooLarge when there were too many."""
        self.spent += 1
        if self.spent > self._most:
            raise TooLarge


class Wanted(NamedTuple):
    """A formula and the outcomes (bits) that it may have."""

    formula: Formula
    outcomes: int


def search(
    space: Space,
    wanted: Sequence[Wanted],
    effort: Effort,
    limits: Mapping[Aspect, Sequence[Value]] | None = None,
) -> Iterator[dict[Aspect, Value]]:
    """Every choice of values with which all of `wanted` hold, whatever the aspects that are not in it are.

    `limits` leaves only some values of an aspect. Raises TooLarge.
    """
    counted = Counter(aspect for want in wanted for aspect in want.formula.aspects)
    limits = limits or {}
    if any(not values for values in limits.values()):
        return
    chosen: dict[Aspect, Value] = {}
    effort.spend()
    undecided = _undecided(wanted, chosen)
    if undecided is not None:
        yield from _Search(space, effort, limits, counted).run(undecided, chosen)


class _Search:
    def __init__(
        self, space: Space, effort: Effort, limits: Mapping[Aspect, Sequence[Value]], counted: Mapping[Aspect, int]
    ) -> None:
        self._space = space
        self._effort = effort
        self._limits = limits
        self._counted = counted

    def run(self, undecided: Sequence[Wanted], chosen: dict[Aspect, Value]) -> Iterator[dict[Aspect, Value]]:
        if len(chosen) > _DEEPEST:
            raise TooLarge
        aspect = self._next(undecided, chosen)
        if aspect is None:
            yield dict(chosen)
            return
        touched = [want for want in undecided if aspect in want.formula.aspects]
        others = [want for want in undecided if aspect not in want.formula.aspects]
        for value in self._values(aspect):
            self._effort.spend()
            chosen[aspect] = value
            left = _undecided(touched, chosen)
            if left is not None:
                yield from self.run([*left, *others], chosen)
        del chosen[aspect]

    def _next(self, undecided: Sequence[Wanted], chosen: Mapping[Aspect, Value]) -> Aspect | None:
        """Of the condition with the fewest aspects left, the one on which most conditions depend."""
        best: list[Aspect] = []
        for want in undecided:
            left = [aspect for aspect in want.formula.aspects if aspect not in chosen]
            if left and (not best or len(left) < len(best)):
                best = left
                if len(left) == 1:
                    break
        return max(best, key=lambda aspect: (self._counted[aspect], aspect)) if best else None

    def _values(self, aspect: Aspect) -> Sequence[Value]:
        if aspect in self._limits:
            return self._limits[aspect]
        return (TRUE, FALSE, ERROR) if aspect.startswith(FREE) else self._space.domains[aspect]


def _undecided(wanted: Sequence[Wanted], chosen: Mapping[Aspect, Value]) -> list[Wanted] | None:
    """Those that may still go either way; None when one can no longer hold."""
    left = []
    for want in wanted:
        possible = want.formula.outcomes(chosen)
        if not possible & want.outcomes:
            return None
        if possible & ~want.outcomes:
            left.append(want)
    return left
