"""What of a decision is settled by the kind of request, before health and predictions are asked.

Constraints, route, candidates and who was removed depend on nothing but how the conditions come out, the model, what
the request needs, and which contexts it fits in. Requests are of few kinds, so that is worked out once for each and
kept in the policy's memo; the key holds everything that it depends on.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec

from gateway.inference.deployment import Deployment
from gateway.policy.compiled import CompiledPolicy, Constraint, Mode, Route
from gateway.policy.conditions import Outcomes
from gateway.policy.facts import Facts
from gateway.policy.pools import NOBODY, Candidates, course_of
from gateway.routing.candidates import Filter, Removed, is_too_long_for_edge, length_of
from gateway.routing.decision import Removal
from gateway.routing.rank import NONE, by_order, is_by_order


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a decision that all requests of one kind share."""

    route: Route | None
    """None: no route matches."""
    is_text: bool = True
    """False: the conditions could not be asked at all, and no route may be taken."""
    reasons: tuple[str, ...]
    passing: Filter
    wanted: Candidates = NOBODY
    """What the route prefers and the filter left."""
    fallback: Candidates = NOBODY
    removed: Sequence[Removal] = ()
    in_order: tuple[Deployment, ...] | None = None
    """All of them, best first, where nothing fails; None where ranking has to be asked."""
    edge: tuple[Deployment, ...] = ()
    """The edge, if the filter leaves it: what a spent budget may be left with."""


def settle(policy: CompiledPolicy, facts: Facts) -> Settled:
    """Constraints, route and candidates of the request, whose model is one of the policy's."""
    outcomes = policy.conditions.outcomes(facts)
    key = _kind(policy, facts, outcomes)
    found = policy.memo.get(key)
    if isinstance(found, Settled):
        return found
    settled = _settle(policy, facts, outcomes)
    policy.memo.put(key, settled)
    return settled


def _kind(policy: CompiledPolicy, facts: Facts, outcomes: Outcomes) -> Hashable:
    return (
        outcomes,
        facts.model,
        facts.tools,
        facts.images,
        facts.json_output,
        facts.audio,
        facts.n > 1,
        length_of(policy, facts),
        *[is_too_long_for_edge(edge, facts) for edge in policy.edges],
    )


def _settle(policy: CompiledPolicy, facts: Facts, outcomes: Outcomes) -> Settled:
    applied, reasons = applied_constraints(policy, outcomes)
    passing = Filter(policy, facts, applied)
    if not outcomes.is_text:
        # Routes that keep such requests apart cannot be told from others: none is taken, not even one for all.
        return Settled(route=None, is_text=False, reasons=tuple(reasons), passing=passing)
    route = _matching(policy, outcomes, reasons)
    if route is None:
        return Settled(route=None, reasons=tuple(reasons), passing=passing)
    course = policy.courses.get((route.name, facts.model)) or course_of(policy, route, facts.model)
    wanted, fallback = course.wanted.passing(passing.passing), course.fallback.passing(passing.passing)
    in_order = None
    if is_by_order(route):
        last = route.mode is not Mode.EDGE_ONLY
        in_order = by_order(wanted, NONE, edge_last=last) + fallback.deployments
    edge = policy.edge
    return Settled(
        route=route,
        reasons=tuple(reasons),
        passing=passing,
        wanted=wanted,
        fallback=fallback,
        removed=Removed(passing, course.wanted, course.fallback),
        in_order=in_order,
        edge=() if edge is None or not passing.keeps(edge) else (edge,),
    )


def applied_constraints(policy: CompiledPolicy, outcomes: Outcomes) -> tuple[list[Constraint], list[str]]:
    """The constraints that apply, and why: a condition that could not be evaluated applies its constraint."""
    applied = policy.index.applying(outcomes)
    reasons = []
    for constraint in applied:
        unknown = constraint.when is not None and outcomes.of(constraint.when) is None
        because = ": its condition could not be evaluated" if unknown else ""
        reasons.append(f"constraint `{constraint.name}` applies{because}")
    return applied, reasons


def _matching(policy: CompiledPolicy, outcomes: Outcomes, reasons: list[str]) -> Route | None:
    route, passed_over = policy.index.first(outcomes)
    reasons += [f"route `{other.name}` is passed over: its condition could not be evaluated" for other in passed_over]
    if route is not None:
        reasons.append(f"route `{route.name}` is the first that matches")
    return route
