"""Which constraints apply and which route is the first that matches, straight from the bits of the outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gateway.policy.conditions import Outcomes

if TYPE_CHECKING:
    from gateway.policy.compiled import Constraint, Route


class RuleIndex:
    """Finds rules by their conditions' positions. Those of routes grow in the order of the routes."""

    __slots__ = ("_always", "_guarding", "_guards", "_last", "_matching", "_routes")

    def __init__(self, constraints: Sequence[Constraint], routes: Sequence[Route]) -> None:
        self._always: list[tuple[int, Constraint]] = []
        self._guarding: dict[int, list[tuple[int, Constraint]]] = {}
        for place, constraint in enumerate(constraints):
            if constraint.when is None:
                self._always.append((place, constraint))
            else:
                self._guarding.setdefault(1 << constraint.when, []).append((place, constraint))
        self._guards = sum(self._guarding)
        self._matching: dict[int, Route] = {}
        self._last: Route | None = None
        for route in routes:
            if route.when is None:
                self._last = route
                break
            if self._matching and 1 << route.when <= max(self._matching):
                raise ValueError("conditions of routes are not in the order of the routes")
            self._matching[1 << route.when] = route
        self._routes = sum(self._matching)

    def applying(self, outcomes: Outcomes) -> list[Constraint]:
        """The constraints that are not known to be without effect, in the policy's order."""
        unsure = self._guards & ~outcomes.false
        found = list(self._always)
        while unsure:
            lowest = unsure & -unsure
            found += self._guarding[lowest]
            unsure ^= lowest
        if len(found) > 1:
            found.sort(key=_place)
        return [constraint for _, constraint in found]

    def first(self, outcomes: Outcomes) -> tuple[Route | None, list[Route]]:
        """The first route that matches, and those before it whose condition could not be evaluated."""
        matching = self._routes & outcomes.true
        lowest = matching & -matching
        before = self._routes & ~(outcomes.true | outcomes.false)
        if lowest:
            return self._matching[lowest], [self._matching[bit] for bit in _bits(before & (lowest - 1))]
        return self._last, [self._matching[bit] for bit in _bits(before)]


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest
        mask ^= lowest


def _place(found: tuple[int, Constraint]) -> int:
    return found[0]
