"""The order in which deployments are asked.

Health comes before everything: what fails now is asked last, but it is asked if nothing else is left. Then what the
mode is about (the cloud before the edge, where the edge is only the fallback), then the route's objectives, then its
weights. A score is a weighted sum of two numbers from 0 (best) to 1 (worst) among the candidates:

  latency   the place in the policy's own order, until there are measured times to predict from
  cost      the expected price of this request over the highest among them
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.inference.deployment import TOKENS_PER_PRICE, Deployment
from gateway.policy.compiled import CompiledPolicy, Route
from gateway.policy.facts import Facts

NONE: frozenset[str] = frozenset()


def failing(policy: CompiledPolicy, facts: Facts) -> frozenset[str]:
    """The ids of what fails at the moment, as far as anybody knows; the edge is one of them until it is ready."""
    if facts.edge_ready or policy.edge is None:
        return facts.unhealthy
    return facts.unhealthy | {policy.edge.id}


def rank(
    deployments: Sequence[Deployment], route: Route, facts: Facts, *, fails: frozenset[str] = NONE, edge_last: bool
) -> list[Deployment]:
    """`deployments` with the best first; those in `fails` last. Equals keep their order."""
    if len(deployments) < 2:
        return list(deployments)
    most = route.objectives.cost_per_request_nanousd
    if not route.weight_cost and most is None:
        # The policy's own order is the score.
        return sorted(deployments, key=lambda at: (at.id in fails, edge_last and at.is_edge))
    costs = [expected_cost(deployment, facts) for deployment in deployments]
    by_place = route.weight_latency / (len(deployments) - 1)
    by_cost = route.weight_cost / (max(costs) or 1)
    limit = None if most is None else most * TOKENS_PER_PRICE
    keys = [
        (
            deployment.id in fails,
            edge_last and deployment.is_edge,
            limit is not None and cost > limit,
            by_place * place + by_cost * cost,
            place,
        )
        for place, (deployment, cost) in enumerate(zip(deployments, costs, strict=True))
    ]
    return [deployments[key[-1]] for key in sorted(keys)]


def expected_cost(deployment: Deployment, facts: Facts) -> int:
    """What this request costs there if the answer is as long as it may be, in millionths of a nano-dollar."""
    price = deployment.price
    output_tokens = facts.max_tokens or deployment.max_output_tokens
    return price.input_nanousd * facts.prompt_tokens + price.output_nanousd * output_tokens
