"""What a route may use for a request, before constraints and capabilities are asked: the upper bound of a decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway.inference.deployment import Deployment
from gateway.policy.compiled import DRAFTING, CompiledPolicy, Route
from gateway.policy.expressions import Condition
from gateway.policy.space import Space, TenantFacts


class Way(NamedTuple):
    """A deployment that a route may use. `beside`: one that has to be allowed as well for that, None when alone."""

    deployment: Deployment
    beside: Deployment | None
    role: str
    """`first choice`, `fallback`, `draft`, or `when the budget is spent`."""


def ways(policy: CompiledPolicy, route: Route, model: str) -> Iterator[Way]:
    """Every way in which `route` may use a deployment for a request that names `model`."""
    wanted = policy.wanted(route, policy.models[model])
    fallback = [deployment for deployment in route.fallback if deployment not in wanted]
    choices = [*wanted, *fallback]
    is_downgraded = route.when_spent == "edge_only"
    for deployment in choices:
        yield Way(deployment, None, "first choice" if deployment in wanted else "fallback")
    drafter = route.draft.deployment if route.mode in DRAFTING and route.draft.allow else None
    for role, other in (("draft", drafter), ("when the budget is spent", policy.edge if is_downgraded else None)):
        if other is not None and other not in choices:
            yield from (Way(other, deployment, role) for deployment in choices)


def space_of(policy: CompiledPolicy, tenants: Sequence[TenantFacts] = (), *, searches: bool = False) -> Space:
    """All requests that the policy, its invariants included, can tell apart; of `tenants`, else of the policy's.

    With `searches`, also those of clients who search a store: they name no model, and stores know tenants by name.
    """
    asked: list[Condition] = [found.condition for found in policy.invariants if found.condition is not None]
    return Space(
        [*policy.conditions.trees, *(condition.tree for condition in asked)],
        tenants=tenants
        or [TenantFacts(name, found.tenant.region, found.tenant.labels) for name, found in policy.tenants.items()],
        models=[*policy.models, ""] if searches else list(policy.models),
        tells_names=searches,
        deployments=list(policy.deployments),
    )
