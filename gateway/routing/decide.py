"""Facts in, decision out.

Constraints first: all that match, or cannot be evaluated, narrow what anything below may use. Then the first route that
matches; then what the request needs; then ranking. Pure, total and deterministic: no clock, no chance, no I/O, no
exception; whatever prevents an answer is the decision's `refusal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

from gateway.errors import FirstdraftError, InvalidRequest, NoDeployment, PolicyDenied, UnknownModel
from gateway.inference.deployment import Deployment
from gateway.policy.compiled import CompiledPolicy, Mode, Route
from gateway.policy.facts import Facts
from gateway.policy.mistakes import suggestion
from gateway.retrieval.rule import PassageStore
from gateway.routing.candidates import Filter
from gateway.routing.decision import Decision, Removal
from gateway.routing.drafts import choose_draft, useful_within_s, wish_of
from gateway.routing.pin import pinned
from gateway.routing.rank import failing, rank, worst_cost
from gateway.routing.settled import Settled, applied_constraints, settle

_MOST_REMOVALS_TOLD = 8
_MOST_CHARACTERS_TOLD = 80
_PARAMETERS = {
    "tools": "tools",
    "images": "messages",
    "audio": "messages",
    "json": "response_format",
    "n": "n",
    "context": "messages",
}


def decide(policy: CompiledPolicy, facts: Facts) -> Decision:
    """Decide how the request behind `facts` is served under `policy`. Never raises; equal arguments, equal decision."""
    named = policy.models.get(facts.model)
    if named is None:
        _, reasons = applied_constraints(policy, policy.conditions.outcomes(facts))
        message = f"There is no model {facts.model[:_MOST_CHARACTERS_TOLD]!r}{suggestion(facts.model, policy.models)}"
        return _refused(policy, UnknownModel(message, param="model"), reasons)
    settled = settle(policy, facts)
    if not settled.is_text:
        message = (
            "A text of this request (its metadata, or a header) has a NUL or broken Unicode: policy cannot read it."
        )
        return _refused(policy, InvalidRequest(message), settled.reasons)
    if settled.route is None:
        message = "No route of the policy matches this request; a route without `when` would match all."
        return _refused(policy, PolicyDenied(message), settled.reasons)
    return _decide_route(policy, facts, settled, settled.route)


def _decide_route(policy: CompiledPolicy, facts: Facts, settled: Settled, route: Route) -> Decision:
    choices, first_choices = _choices(policy, facts, settled, route)
    if not choices:
        refusal = _refusal(route, settled.removed, policy)
        return _refused(policy, refusal, settled.reasons, route=route, removed=settled.removed)
    no_retrieval = _no_retrieval(policy, facts, settled, route)
    if no_retrieval and route.retrieval is not None and route.retrieval.when_fails == "reject":
        message = f"Route `{route.name}` needs passages that this request may not have: {no_retrieval}."
        return _refused(policy, PolicyDenied(message), settled.reasons, route=route, removed=settled.removed)
    mode, because = _effective(route.mode, choices)
    wish = wish_of(route, facts)
    within_s = useful_within_s(route, choices[0])
    draft, no_draft = choose_draft(route, mode, facts, settled.passing, choices[0], wish=wish, within_s=within_s)
    if mode is Mode.CASCADE and draft is None:
        because = f"the larger model is asked at once, without a cascade: {no_draft}"
    spent = _spent(route, facts, settled, choices)
    return Decision(
        policy_version=policy.version,
        route=route.name,
        mode=mode,
        deployments=choices,
        first_choices=first_choices,
        drafter=route.draft.deployment,
        draft=draft,
        draft_max_tokens=0 if draft is None else route.draft.max_tokens,
        draft_within_s=None if draft is None else within_s,
        no_draft=no_draft,
        draft_wish=wish,
        spent=spent,
        spent_mode=Mode.EDGE_ONLY if _all_edge(spent) else Mode.CLOUD_ONLY,
        hedge=route.hedge,
        cascade=route.cascade if mode is Mode.CASCADE else None,
        refine=route.refine if draft is not None else None,
        compares_meaning=draft is not None and route.draft.compares_meaning,
        cache=route.cache,
        retrieval=None if no_retrieval else route.retrieval,
        no_retrieval=no_retrieval,
        removed=settled.removed,
        reasons=(*settled.reasons, because) if because else settled.reasons,
    )


def _no_retrieval(policy: CompiledPolicy, facts: Facts, settled: Settled, route: Route) -> str:
    if route.retrieval is None:
        return ""
    return settled.passing.objection_to(policy.stores[route.retrieval.store], facts.tenant_name)


def searchable(policy: CompiledPolicy, facts: Facts, store: PassageStore) -> str:
    """Why whoever stands behind `facts` may not search this store, empty when they may."""
    applied, _ = applied_constraints(policy, policy.conditions.outcomes(facts))
    return Filter(policy, facts, applied).objection_to(store, facts.tenant_name)


def _choices(
    policy: CompiledPolicy, facts: Facts, settled: Settled, route: Route
) -> tuple[tuple[Deployment, ...], int]:
    """All that may answer, best first, and how many of them are what the route prefers."""
    fails = failing(policy, facts)
    if not fails and settled.in_order is not None:
        return settled.in_order, len(settled.wanted.deployments) or len(settled.in_order)
    edge_last = route.mode is not Mode.EDGE_ONLY
    preferred = rank(settled.wanted, route, facts, fails=fails, edge_last=edge_last)
    if route.pins and facts.prefix:
        preferred = pinned(preferred, facts.prefix, fails=fails, edge_last=edge_last)
    choices = preferred + rank(settled.fallback, route, facts, fails=fails, edge_last=False)
    if not (fails and settled.fallback.deployments):
        return choices, len(preferred) or len(choices)
    # What fails now goes behind every fallback that does not.
    choices = tuple(sorted(choices, key=lambda deployment: deployment.id in fails))
    return choices, sum(1 for _ in takewhile((preferred or choices).__contains__, choices))


def _effective(mode: Mode, choices: tuple[Deployment, ...]) -> tuple[Mode, str]:
    """The mode that is possible with these, and why where it is another."""
    if mode is Mode.EDGE_ONLY or not choices[0].is_edge:
        return mode, ""
    if _all_edge(choices):
        return Mode.EDGE_ONLY, f"mode edge_only instead of {mode.value}: only the edge is left"
    if mode is Mode.DRAFT_REFINE:
        return Mode.CLOUD_ONLY, "no draft: the edge itself gives the final, for what else could fails now"
    return mode, ""


def _all_edge(deployments: tuple[Deployment, ...]) -> bool:
    return all(deployment.is_edge for deployment in deployments)


def _spent(route: Route, facts: Facts, settled: Settled, choices: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
    """What the route names for a spent budget, out of what the same filter leaves."""
    if route.when_spent == "edge_only":
        edge = tuple(deployment for deployment in choices if deployment.is_edge)
        return edge or settled.edge
    if route.when_spent == "cheapest":
        costs = {deployment.id: worst_cost(deployment, facts) for deployment in choices}
        cheaper = [deployment for deployment in choices if costs[deployment.id] < costs[choices[0].id]]
        return tuple(sorted(cheaper, key=lambda deployment: costs[deployment.id]))
    return ()


def _refused(
    policy: CompiledPolicy,
    refusal: FirstdraftError,
    reasons: Iterable[str],
    *,
    route: Route | None = None,
    removed: Sequence[Removal] = (),
) -> Decision:
    return Decision(
        policy_version=policy.version,
        route="" if route is None else route.name,
        mode=Mode.CLOUD_ONLY if route is None else route.mode,
        no_draft="mode",
        removed=removed,
        reasons=tuple(reasons),
        refusal=refusal,
    )


def _refusal(route: Route, removed: Sequence[Removal], policy: CompiledPolicy) -> FirstdraftError:
    """Who is to blame: policy, if a constraint removed any of them; else the request, if none can serve it."""
    if not removed:
        edge = "" if policy.edge is not None else ": the policy has no edge"
        return NoDeployment(f"Route `{route.name}` has no deployment that could answer{edge}.")
    told = "; ".join(
        f"{removal.deployment} by {'constraint ' if removal.is_constraint else ''}`{removal.by}` ({removal.reason})"
        for removal in removed[:_MOST_REMOVALS_TOLD]
    )
    more = f"; and {len(removed) - _MOST_REMOVALS_TOLD} more" if len(removed) > _MOST_REMOVALS_TOLD else ""
    message = f"No deployment may answer this request on route `{route.name}`. Removed: {told}{more}."
    if any(removal.is_constraint for removal in removed):
        return PolicyDenied(message)
    return InvalidRequest(message, param=_PARAMETERS.get(removed[0].by))
