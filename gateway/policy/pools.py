"""The deployments that a route may use, ready to be filtered and ranked: made at load for each route and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from gateway.inference.deployment import Deployment

if TYPE_CHECKING:
    from gateway.policy.compiled import CompiledPolicy, Route

_FLAGS = bytes.maketrans(b"01", b"\0\1")


_MOST_REMEMBERED = 64
_MOST_AT_LOAD = 8_192
"""Picked ahead: about a tenth of a second."""


Rate = tuple[float, float, float, float]
"""Nano-dollars for a million input tokens and for output tokens; the longest answer where the client sets no limit, and
what that one costs. Floats, which are quick, and exact enough to rank by.
"""


class Candidates(NamedTuple):
    """Deployments in the policy's own order, and what ranking asks about each of them."""

    deployments: tuple[Deployment, ...] = ()
    rates: tuple[Rate, ...] = ()
    dearest: tuple[Rate, ...] = ()
    """Those of the rates that may come to the most, whatever the request: seldom more than a few."""
    has_edge: bool = False


NOBODY = Candidates()


class Pool:
    """All deployments of one list, before anything is filtered; bits are those of `CompiledPolicy.positions`."""

    __slots__ = ("_bits", "_edge", "_flags_of", "_known", "_sentinel", "all")

    def __init__(self, deployments: Sequence[Deployment], positions: Mapping[str, int]) -> None:
        own = tuple(deployments)
        places = [positions[deployment.id] for deployment in own]
        rates = tuple(_rate(deployment) for deployment in own)
        self._edge = sum(1 << place for place, at in zip(places, own, strict=True) if at.is_edge)
        self._bits = sum(1 << place for place in places)
        self._sentinel = 1 << self._bits.bit_length()
        self._flags_of = itemgetter(*places) if len(places) > 1 else tuple
        self.all = Candidates(own, rates, _dearest(rates), bool(self._edge))
        self._known: dict[int, Candidates] = {}

    def passing(self, mask: int) -> Candidates:
        """Those whose bit is in `mask`, in order."""
        kept = self._bits & mask
        if kept == self._bits:
            return self.all
        if not kept:
            return NOBODY
        found = self._known.get(kept)
        if found is None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            found = self._known[kept] = self._picked(kept)
        return found

    def _picked(self, kept: int) -> Candidates:
        # The bits as bytes of 0 and 1, the lowest first, so that all are picked in one go.
        flags = self._flags_of(bin(kept | self._sentinel)[:2:-1].encode().translate(_FLAGS))
        own = self.all
        rates = tuple(compress(own.rates, flags))
        return Candidates(tuple(compress(own.deployments, flags)), rates, _dearest(rates), bool(kept & self._edge))


def _rate(deployment: Deployment) -> Rate:
    price, longest = deployment.price, float(deployment.max_output_tokens)
    return float(price.input_nanousd), float(price.output_nanousd), longest, price.output_nanousd * longest


def _dearest(rates: tuple[Rate, ...]) -> tuple[Rate, ...]:
    """`rates` without those that one of them is never below."""
    if not rates:
        return ()
    top = max(rates, key=lambda rate: rate[0] + rate[1])
    most_input, most_output, _, most_whole = top
    return (top, *[one for one in rates if one[0] > most_input or one[1] > most_output or one[3] > most_whole])


class Course(NamedTuple):
    """What a route prefers for a request that names one model, and what it falls back on."""

    wanted: Pool
    fallback: Pool


def courses_of(policy: CompiledPolicy) -> dict[tuple[str, str], Course]:
    """By the names of route and model, with what each constraint alone leaves of them."""
    pools: dict[tuple[str, ...], Pool] = {}
    courses = {
        (route.name, model): course_of(policy, route, model, pools)
        for route in policy.routes
        for model in policy.models
    }
    masks = {constraint.allowed for constraint in policy.constraints}
    if len(masks) <= _MOST_REMEMBERED and len(masks) * len(pools) <= _MOST_AT_LOAD:
        for pool in pools.values():
            for mask in masks:
                pool.passing(mask)
    return courses


def course_of(
    policy: CompiledPolicy, route: Route, model: str, pools: dict[tuple[str, ...], Pool] | None = None
) -> Course:
    """That of one route and model; lists that are in `pools` already are not made again."""
    made = {} if pools is None else pools

    def pool(deployments: Sequence[Deployment]) -> Pool:
        ids = tuple([deployment.id for deployment in deployments])
        if ids not in made:
            made[ids] = Pool(deployments, policy.positions)
        return made[ids]

    wanted = policy.wanted(route, policy.models[model])
    return Course(pool(wanted), pool([deployment for deployment in route.fallback if deployment not in wanted]))
