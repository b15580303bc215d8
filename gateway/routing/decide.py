"""Facts in, decision out.

Constraints first: all that match, or cannot be evaluated, narrow what anything below may use. Then the first route that
matches; then what the request needs; then ranking. Pure, total and deterministic: no clock, no chance, no I/O, no
exception; whatever prevents an answer is the decision's `refusal`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from gateway.errors import FirstdraftError, InvalidRequest, NoDeployment, PolicyDenied, UnknownModel
from gateway.inference.deployment import Deployment
from gateway.policy.compiled import CompiledPolicy, Constraint, Mode, Route
from gateway.policy.facts import Facts
from gateway.policy.mistakes import suggestion
from gateway.routing.candidates import Filter
from gateway.routing.decision import Decision, Removal
from gateway.routing.drafts import choose_draft, useful_within_s, wish_of
from gateway.routing.rank import expected_cost, failing, rank

_MOST_REMOVALS_TOLD = 8
_MOST_CHARACTERS_TOLD = 80
_PARAMETERS = {
    "tools": "tools",
    "images": "messages",
    "audio": "messages",
    "json": "response_format",
    "n": "n",
    "logprobs": "logprobs",
    "context": "messages",
}


def decide(policy: CompiledPolicy, facts: Facts) -> Decision:
    """Decide how the request behind `facts` is served under `policy`. Never raises; equal arguments, equal decision."""
    outcomes = policy.conditions.evaluate(facts)
    applied, reasons = _applied(policy, outcomes)
    named = policy.models.get(facts.model)
    if named is None:
        message = f"There is no model {facts.model[:_MOST_CHARACTERS_TOLD]!r}{suggestion(facts.model, policy.models)}"
        return _refused(policy, UnknownModel(message, param="model"), reasons)
    route = _matching(policy, outcomes, reasons)
    if route is None:
        message = "No route of the policy matches this request; a route without `when` would match all."
        return _refused(policy, PolicyDenied(message), reasons)
    wanted = policy.wanted(route, named)
    return _decide_route(
        policy, facts, route=route, wanted=wanted, passing=Filter(policy, facts, applied), reasons=reasons
    )


def _applied(policy: CompiledPolicy, outcomes: list[bool | None]) -> tuple[list[Constraint], list[str]]:
    """The constraints that apply: a condition that could not be evaluated applies its constraint."""
    applied = [
        constraint
        for constraint in policy.constraints
        if constraint.when is None or outcomes[constraint.when] is not False
    ]
    reasons = []
    for constraint in applied:
        unknown = constraint.when is not None and outcomes[constraint.when] is None
        because = ": its condition could not be evaluated" if unknown else ""
        reasons.append(f"constraint `{constraint.name}` applies{because}")
    return applied, reasons


def _matching(policy: CompiledPolicy, outcomes: list[bool | None], reasons: list[str]) -> Route | None:
    for route in policy.routes:
        when = route.when
        outcome = when is None or outcomes[when]
        if outcome:
            reasons.append(f"route `{route.name}` is the first that matches")
            return route
        if outcome is None:
            reasons.append(f"route `{route.name}` is passed over: its condition could not be evaluated")
    return None


def _decide_route(
    policy: CompiledPolicy,
    facts: Facts,
    *,
    route: Route,
    wanted: tuple[Deployment, ...],
    passing: Filter,
    reasons: list[str],
) -> Decision:
    fails = failing(policy, facts)
    kept = passing.keep(wanted)
    preferred = rank(kept, route, facts, fails=fails, edge_last=route.mode is not Mode.EDGE_ONLY)
    fallback = passing.keep([deployment for deployment in route.fallback if deployment not in wanted])
    choices = [*preferred, *rank(fallback, route, facts, fails=fails, edge_last=False)]
    first_choices = len(preferred) or len(choices)
    if fails and fallback:
        # What fails now goes behind every fallback that does not.
        choices.sort(key=lambda deployment: deployment.id in fails)
        first_choices = sum(1 for _ in takewhile((preferred or choices).__contains__, choices))
    removed = tuple(passing.removed.values())
    if not choices:
        return _refused(policy, _refusal(route, removed, policy), reasons, route=route, removed=removed)
    mode = _effective(route.mode, choices, reasons)
    wish = wish_of(route, facts)
    within_s = useful_within_s(route, choices[0])
    draft, no_draft = choose_draft(route, mode, facts, passing, wish=wish, within_s=within_s)
    spent = _spent(policy, route, facts, passing, choices)
    return Decision(
        policy_version=policy.version,
        route=route.name,
        mode=mode,
        deployments=tuple(choices),
        first_choices=first_choices,
        draft=draft,
        draft_max_tokens=0 if draft is None else route.draft.max_tokens,
        draft_within_s=None if draft is None else within_s,
        no_draft=no_draft,
        draft_wish=wish,
        spent=spent,
        spent_mode=Mode.EDGE_ONLY if _all_edge(spent) else Mode.CLOUD_ONLY,
        cache=route.cache,
        removed=removed,
        reasons=tuple(reasons),
    )


def _effective(mode: Mode, choices: list[Deployment], reasons: list[str]) -> Mode:
    if mode is Mode.EDGE_ONLY or not choices[0].is_edge:
        return mode
    if _all_edge(choices):
        reasons.append(f"mode edge_only instead of {mode.value}: only the edge is left")
        return Mode.EDGE_ONLY
    if mode is Mode.DRAFT_REFINE:
        reasons.append("no draft: the edge itself gives the final, for what else could fails now")
        return Mode.CLOUD_ONLY
    return mode


def _all_edge(deployments: Iterable[Deployment]) -> bool:
    return all(deployment.is_edge for deployment in deployments)


def _spent(
    policy: CompiledPolicy, route: Route, facts: Facts, passing: Filter, choices: list[Deployment]
) -> tuple[Deployment, ...]:
    """What the route names for a spent budget, out of what the same filter leaves."""
    if route.when_spent == "edge_only":
        edge = [deployment for deployment in choices if deployment.is_edge]
        return tuple(edge or passing.keep(() if policy.edge is None else (policy.edge,)))
    if route.when_spent == "cheapest":
        costs = {deployment.id: expected_cost(deployment, facts) for deployment in choices}
        cheaper = [deployment for deployment in choices if costs[deployment.id] < costs[choices[0].id]]
        return tuple(sorted(cheaper, key=lambda deployment: costs[deployment.id]))
    return ()


def _refused(
    policy: CompiledPolicy,
    refusal: FirstdraftError,
    reasons: list[str],
    *,
    route: Route | None = None,
    removed: tuple[Removal, ...] = (),
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


def _refusal(route: Route, removed: tuple[Removal, ...], policy: CompiledPolicy) -> FirstdraftError:
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
