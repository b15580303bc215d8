"""The order in which deployments are asked.

Health comes before everything: what fails now is asked last, but it is asked if nothing else is left. Then what the
mode is about (the cloud before the edge, where the edge is only the fallback), then the route's objectives, then its
weights. A score is a weighted sum of two numbers from 0 (best) to 1 (worst) among the candidates:

  latency   the place in the policy's own order, until there are measured times to predict from
  cost      the expected price of this request over the highest among them
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.inference.deployment import Deployment
from gateway.policy.compiled import Route
from gateway.policy.facts import Facts


def rank(deployments: Sequence[Deployment], route: Route, facts: Facts, *, edge_last: bool) -> list[Deployment]:
    """`deployments` with the best first. Equals keep their order."""
    if len(deployments) < 2:
        return list(deployments)
    costs = [expected_cost_nanousd(deployment, facts) for deployment in deployments]
    highest = max(costs) or 1
    last = len(deployments) - 1
    most = route.objectives.cost_per_request_nanousd

    def key(place: int) -> tuple[bool, bool, bool, float, int]:
        deployment, cost = deployments[place], costs[place]
        score = route.weight_latency * (place / last) + route.weight_cost * (cost / highest)
        too_dear = most is not None and cost > most
        return is_failing(deployment, facts), edge_last and deployment.is_edge, too_dear, score, place

    return [deployments[place] for place in sorted(range(len(deployments)), key=key)]


def is_failing(deployment: Deployment, facts: Facts) -> bool:
    """It fails at the moment, as far as anybody knows."""
    return deployment.id in facts.unhealthy or (deployment.is_edge and not facts.edge_ready)


def expected_cost_nanousd(deployment: Deployment, facts: Facts) -> int:
    """What this request costs there if the answer is as long as it may be."""
    return deployment.price.cost_nanousd(
        input_tokens=max(0, facts.prompt_tokens),
        output_tokens=max(0, facts.max_tokens or deployment.max_output_tokens),
    )
