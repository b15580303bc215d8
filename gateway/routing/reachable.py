"""The models that a tenant can reach at all: those for which policy lets an ordinary request of its own pass."""

from __future__ import annotations

from gateway.errors import PolicyDenied
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.facts import Facts
from gateway.routing.decide import decide
from gateway.tenants.tenant import Tenant


def reachable_models(policy: CompiledPolicy, tenant: Tenant) -> tuple[str, ...]:
    """The public names, in the policy's order.

    An ordinary request has no feature, no labels but the tenant's, and needs nothing special. What policy opens or
    closes for certain features or labels is not seen here: it is judged with each request.
    """
    return tuple(model for model in policy.models if is_reachable(policy, tenant, model))


def is_reachable(policy: CompiledPolicy, tenant: Tenant, model: str) -> bool:
    """Whether policy lets an ordinary request for `model` pass; False also when there is no such model."""
    if model not in policy.models:
        return False
    facts = Facts(
        tenant_name=tenant.name, tenant_region=tenant.region, tenant_labels=tenant.labels, model=model, edge_ready=True
    )
    return not isinstance(decide(policy, facts).refusal, PolicyDenied)
