"""The whole story of one decision: for each constraint, route and deployment, why or why not.

The decision in it is `decide`'s own, on the same facts; nothing here decides anything.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.policy.compiled import CompiledPolicy, Route
from gateway.policy.facts import Facts
from gateway.routing.decide import decide, searchable
from gateway.routing.decision import Decision
from gateway.routing.rank import failing

_SECOND = 2

Outcome = Literal["matches", "no match", "error", "not reached"]


class RuleStory(msgspec.Struct, frozen=True):
    """A constraint or a route: what it says, and what came of it."""

    name: str
    when: str
    """Its condition; empty when it has none."""
    outcome: Outcome
    effect: str


class DeploymentStory(msgspec.Struct, frozen=True):
    """A deployment of the policy and its place in the decision."""

    id: str
    place: int
    """From 1; 0 when it is not used."""
    region: str
    compliance: tuple[str, ...]
    why: str


class StoreStory(msgspec.Struct, frozen=True):
    """A store of passages, and whether this request may look something up there."""

    name: str
    used: bool
    """The route adds its passages to this request."""
    region: str
    compliance: tuple[str, ...]
    why: str


class Explanation(msgspec.Struct, frozen=True):
    """A decision with its story. Lists are in the policy's order; deployments begin with those that are used."""

    decision: Decision
    constraints: tuple[RuleStory, ...]
    routes: tuple[RuleStory, ...]
    deployments: tuple[DeploymentStory, ...]
    stores: tuple[StoreStory, ...] = ()


def explain(policy: CompiledPolicy, facts: Facts) -> Explanation:
    """Decide, and tell why."""
    decision = decide(policy, facts)
    outcomes = policy.conditions.evaluate(facts)
    return Explanation(
        decision=decision,
        constraints=_constraints(policy, outcomes),
        routes=_routes(policy, outcomes, decision),
        deployments=_deployments(policy, decision, failing(policy, facts)),
        stores=_stores(policy, decision, facts),
    )


def _stores(policy: CompiledPolicy, decision: Decision, facts: Facts) -> tuple[StoreStory, ...]:
    wanted = next((route.retrieval for route in policy.routes if route.name == decision.route), None)
    stories = []
    for store in policy.stores.values():
        used = decision.retrieval is not None and decision.retrieval.store == store.name
        against = searchable(policy, facts, store)
        if against and wanted is not None and wanted.store == store.name:
            against = f"wanted by the route, and not asked: {against}"
        why = "its passages are added to the prompt" if used else against or "may be searched"
        stories.append(StoreStory(store.name, used, store.region, tuple(sorted(store.compliance)), why))
    return tuple(stories)


def _constraints(policy: CompiledPolicy, outcomes: list[bool | None]) -> tuple[RuleStory, ...]:
    stories = []
    for constraint in policy.constraints:
        outcome = _outcome(True if constraint.when is None else outcomes[constraint.when])
        demands = [f"region {' or '.join(constraint.regions)}"] if constraint.regions else []
        demands += [" or ".join(sorted(terms)) for terms in constraint.compliance]
        demands += ["what there is not: such requests are denied"] if constraint.denies else []
        effect = {
            "matches": f"requires {', and '.join(demands)}",
            "error": f"cannot be evaluated, so it applies: requires {', and '.join(demands)}",
        }.get(outcome, "does not apply")
        stories.append(RuleStory(constraint.name, constraint.source, outcome, effect))
    return tuple(stories)


def _routes(policy: CompiledPolicy, outcomes: list[bool | None], decision: Decision) -> tuple[RuleStory, ...]:
    stories = []
    decided = False
    for route in policy.routes:
        outcome = "not reached" if decided else _outcome(True if route.when is None else outcomes[route.when])
        effect = _route_effect(route) if outcome == "matches" else ""
        decided = decided or route.name == decision.route
        stories.append(RuleStory(route.name, route.source, outcome, effect))
    return tuple(stories)


def _route_effect(route: Route) -> str:
    effect = f"mode {route.mode.value}"
    if route.models:
        effect += f", models {', '.join(route.models)}"
    if route.hedge is not None:
        after = f"p{100 * route.hedge.share:.0f}" if route.hedge.after_s is None else f"{route.hedge.after_s:g} s"
        effect += f", a second one asked after {after} for {route.hedge.extra:.0%} of the requests at most"
    if route.pins:
        effect += ", each conversation where it began"
    return effect


def _outcome(outcome: bool | None) -> Outcome:  # noqa: FBT001 - a value of the language, not a switch
    if outcome is None:
        return "error"
    return "matches" if outcome else "no match"


def _deployments(policy: CompiledPolicy, decision: Decision, fails: frozenset[str]) -> tuple[DeploymentStory, ...]:
    places = {deployment.id: place for place, deployment in enumerate(decision.deployments, start=1)}
    removed = {removal.deployment: removal for removal in decision.removed}
    spent = {deployment.id for deployment in decision.spent}
    stories = []
    for deployment in policy.deployments.values():
        place = places.get(deployment.id, 0)
        parts = []
        if place:
            parts.append("first choice" if place <= decision.first_choices else "fallback")
        if place == _SECOND and decision.hedge is not None and place <= decision.first_choices:
            parts.append("asked as well when the first is late")
        if place and deployment.id in fails:
            parts.append("fails now, so it is asked after all that does not")
        if decision.draft is not None and decision.draft.id == deployment.id:
            parts.append("drafts" if decision.cascade is None else "asked first: its answer stands when it is sure")
        if deployment.id in spent:
            parts.append("used when the budget is spent")
        if deployment.id in removed:
            removal = removed[deployment.id]
            what = "constraint" if removal.is_constraint else "capability"
            parts.append(f"removed by {what} {removal.by}: {removal.reason}")
        why = "; ".join(parts) or "not a candidate of this route and model"
        region, compliance = deployment.backend.region, tuple(sorted(deployment.backend.compliance))
        stories.append(DeploymentStory(deployment.id, place, region, compliance, why))
    return tuple(sorted(stories, key=lambda story: (story.place == 0, story.place)))


def as_json(explanation: Explanation) -> dict[str, Any]:
    """Plain values for JSON; nothing secret is in them."""
    decision = explanation.decision
    refusal = decision.refusal
    return {
        "policy_version": decision.policy_version,
        "route": decision.route,
        "mode": decision.mode.value,
        "deployments": [deployment.id for deployment in decision.deployments],
        "first_choices": decision.first_choices,
        "draft": None if decision.draft is None else decision.draft.id,
        "draft_max_tokens": decision.draft_max_tokens,
        "draft_wish": decision.draft_wish.value,
        "no_draft": decision.no_draft,
        "hedge": None if decision.hedge is None else msgspec.to_builtins(decision.hedge),
        "cascade": None if decision.cascade is None else msgspec.to_builtins(decision.cascade),
        "refine": None if decision.refine is None else msgspec.to_builtins(decision.refine),
        "spent": [deployment.id for deployment in decision.spent],
        "spent_mode": decision.spent_mode.value,
        "retrieval": None if decision.retrieval is None else msgspec.to_builtins(decision.retrieval),
        "no_retrieval": decision.no_retrieval,
        "cache": None if decision.cache is None else msgspec.to_builtins(decision.cache),
        "reasons": list(decision.reasons),
        "refusal": None
        if refusal is None
        else {"status": refusal.status, "code": refusal.code, "message": refusal.message},
        "why": {
            "constraints": msgspec.to_builtins(explanation.constraints),
            "routes": msgspec.to_builtins(explanation.routes),
            "deployments": msgspec.to_builtins(explanation.deployments),
            "stores": msgspec.to_builtins(explanation.stores),
        },
    }
