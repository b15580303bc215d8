"""Whether an invariant holds for stores of passages: what is looked up there is part of the prompt.

A store is reached by a route's `retrieval`, and by a client's own search, which has no more facts than its tenant and
its labels. As with deployments, what is found is put to `decide` or `searchable` before it is called a leak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from gateway.policy.compiled import CompiledPolicy, Invariant, objection
from gateway.policy.evaluate import Value
from gateway.policy.facts import Facts
from gateway.policy.outcomes import FALSE
from gateway.policy.space import LABEL, MODEL, TENANT, Aspect, Space
from gateway.retrieval.rule import PassageStore
from gateway.routing.decide import decide, searchable

RETRIEVAL, SEARCH = "retrieval", "search"
NO_MODEL = ""
"""What a search names for a model."""


class StoreWay(NamedTuple):
    """How a store is reached: by the retrieval of the route at a position, or by a search (None)."""

    store: PassageStore
    route: int | None


def store_ways(policy: CompiledPolicy, invariant: Invariant) -> Iterator[StoreWay]:
    """The ways to stores that do not meet `invariant`."""
    for store in policy.stores.values():
        if objection(store, invariant.regions, invariant.compliance):
            yield StoreWay(store, None)
            for position, route in enumerate(policy.routes):
                if route.retrieval is not None and route.retrieval.store == store.name:
                    yield StoreWay(store, position)


def guards_of(policy: CompiledPolicy, store: PassageStore) -> tuple[list[tuple[int, int]], bool]:
    """Conditions of constraints that keep requests from `store`, with the outcome under which they do not.

    And whether one without a condition always does.
    """
    guards = [constraint for constraint in policy.constraints if constraint.objection(store)]
    always = any(constraint.when is None for constraint in guards)
    return [(guard.when, FALSE) for guard in guards if guard.when is not None], always


def limits_of(policy: CompiledPolicy, way: StoreWay, space: Space) -> Mapping[Aspect, Sequence[Value]]:
    """The values that a request has which may come this way."""
    limits: dict[Aspect, Sequence[Value]] = {MODEL: list(policy.models)}
    if way.store.tenants:
        limits[TENANT] = [place for place, tenant in enumerate(space.tenants) if tenant.name in way.store.tenants]
    if way.route is None:
        plain = _plain_facts("")
        for aspect, values in space.domains.items():
            if aspect not in {TENANT, MODEL} and not aspect.startswith(LABEL):
                limits[aspect] = [value for value in values if value == plain.get(aspect)] or values
        limits[MODEL] = [NO_MODEL]
    return limits


def store_leaks(policy: CompiledPolicy, invariant: Invariant, way: StoreWay, facts: Facts) -> tuple[Facts, str] | None:
    """The facts of a request that comes this way against `invariant`, and its route; None when these do not."""
    if way.route is None:
        facts = Facts(
            tenant_name=facts.tenant_name,
            tenant_region=facts.tenant_region,
            tenant_labels=facts.tenant_labels,
            model=NO_MODEL,
            labels=facts.labels,
        )
    holds = True if invariant.condition is None else policy.conditions.outcome(invariant.condition, facts)
    if holds is False:
        return None
    if way.route is None:
        return None if searchable(policy, facts, way.store) else (facts, "")
    decision = decide(policy, facts)
    reached = decision.retrieval is not None and decision.retrieval.store == way.store.name
    return (facts, decision.route) if reached and decision.refusal is None else None


def _plain_facts(tenant: str) -> dict[str, Value]:
    """The aspects of a search, by name."""
    facts = msgspec.structs.asdict(Facts(tenant_name=tenant, model=NO_MODEL))
    named: dict[str, Value] = {f"request.{name}": value for name, value in facts.items()}
    return {
        **named,
        "request.max_tokens": 0,
        "budget.left": facts["budget_left"],
        "backend.edge_ready": facts["edge_ready"],
    }
