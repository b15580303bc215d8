"""The order in which deployments are asked.

Health comes before everything: what fails now is asked last, but it is asked if nothing else is left. Then what the
mode is about (the cloud before the edge, where the edge is only the fallback), then the route's objectives, then its
weights. A score is a weighted sum of two numbers from 0 (best) to 1 (worst) among the candidates:

  latency   the predicted time to the whole answer over the longest among them; where nothing is predicted, or the route
            does not say `optimize`, the place in the policy's own order
  cost      the expected price of this request over the highest among them

An objective on cost is held against the price of the worst case, one on the first token against its prediction. Among
those whose scores are nearly the best, a route with `affinity: prefix` takes the one on which the prompt's beginning
hashes highest (it has that beginning in its cache); else, of two drawn at random, the one with less in flight ("the
power of two choices": Mitzenmacher, 2001), so that many gateways with the same numbers do not all pick the same. The
draw is a fact: the order is a function of the facts alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from gateway.inference.deployment import TOKENS_PER_PRICE, Deployment
from gateway.inference.prediction import Prediction
from gateway.policy.compiled import CompiledPolicy, Route
from gateway.policy.facts import Facts

NONE: frozenset[str] = frozenset()
NEAR = 0.1
"""Of the sum of the weights: scores that differ by less are nearly equal."""
NEAR_WITH_PREFIX = 0.3
"""A warm prefix saves most of the prefill, so it is worth more than the difference between equals."""

_FAILS, _EDGE, _OVER = 1e9, 1e6, 1e3
"""Added to scores, which stay far below: each outweighs all that come after it."""
_MOST_OVER = 900.0


def failing(policy: CompiledPolicy, facts: Facts) -> frozenset[str]:
    """The ids of what fails at the moment, as far as anybody knows; the edge is one of them until it is ready."""
    if facts.edge_ready or policy.edge is None:
        return facts.unhealthy
    return facts.unhealthy | {policy.edge.id}


def is_by_order(route: Route) -> bool:
    """Where nothing fails, the policy's own order is the order, whatever the request."""
    objectives = route.objectives
    by_cost = route.weight_cost or objectives.cost_per_request_nanousd is not None
    by_time = route.optimizes or objectives.final_first_token_s is not None or route.prefix_affinity
    return not by_cost and not by_time


def by_order(deployments: Sequence[Deployment], fails: frozenset[str], *, edge_last: bool) -> list[Deployment]:
    """The policy's own order, but for what fails and, where it is only the fallback, the edge."""
    return sorted(deployments, key=lambda at: (at.id in fails, edge_last and at.is_edge))


def rank(
    deployments: Sequence[Deployment], route: Route, facts: Facts, *, fails: frozenset[str] = NONE, edge_last: bool
) -> list[Deployment]:
    """`deployments` with the best first; those in `fails` last. Equals keep their order."""
    if len(deployments) < 2:
        return list(deployments)
    if is_by_order(route):
        return by_order(deployments, fails, edge_last=edge_last)
    predicted = facts.predicted
    scores = _scores(deployments, route, facts)
    if fails or edge_last or route.objectives.final_first_token_s is not None:
        _add_penalties(scores, deployments, route, facts, fails=fails or NONE, edge_last=edge_last)
    order = sorted(range(len(scores)), key=scores.__getitem__)
    if route.prefix_affinity or (predicted and route.optimizes):
        first = _chosen(order, scores, deployments, route, facts)
        if first != order[0]:
            order.remove(first)
            order.insert(0, first)
    return [deployments[place] for place in order]


def _scores(deployments: Sequence[Deployment], route: Route, facts: Facts) -> list[float]:
    seconds = _seconds(deployments, facts) if route.optimizes and facts.predicted else None
    if seconds is None:
        step = route.weight_latency / (len(deployments) - 1)
        scores = [step * place for place in range(len(deployments))]
    else:
        scale = route.weight_latency / (max(seconds) or 1.0)
        scores = [scale * taken for taken in seconds]
    if route.weight_cost:
        costs = _expected_costs(deployments, facts)
        per_cost = route.weight_cost / (max(costs) or 1)
        scores = [score + per_cost * cost for score, cost in zip(scores, costs, strict=True)]
    most = route.objectives.cost_per_request_nanousd
    if most is not None:
        limit = most * TOKENS_PER_PRICE
        scores = [
            score + _OVER if worst_cost(deployment, facts) > limit else score
            for score, deployment in zip(scores, deployments, strict=True)
        ]
    return scores


def _expected_costs(deployments: Sequence[Deployment], facts: Facts) -> Sequence[float]:
    if facts.predicted:
        return [expected_cost(deployment, facts) for deployment in deployments]
    prompt_tokens, most = facts.prompt_tokens, facts.max_tokens
    return [  # as `worst_cost`, without a call for each of what may be a hundred
        (price := at.price).input_nanousd * prompt_tokens + price.output_nanousd * (most or at.max_output_tokens)
        for at in deployments
    ]


def _seconds(deployments: Sequence[Deployment], facts: Facts) -> list[float] | None:
    """The predicted time to the whole answer; of what is not known the best that is, so that it gets known."""
    known = [
        (predicted, _tokens(at, predicted, facts)) for at in deployments if (predicted := facts.predicted.get(at.id))
    ]
    if not known:
        return None
    usual = sum(tokens for _, tokens in known) / len(known)
    found = {id(one): one.first_token_s + one.per_token_s * usual for one, _ in known}
    best = min(found.values())
    return [found[id(one)] if (one := facts.predicted.get(at.id)) else best for at in deployments]


def _tokens(deployment: Deployment, predicted: Prediction, facts: Facts) -> float:
    most = facts.max_tokens or deployment.max_output_tokens
    return most if predicted.output_tokens is None else min(most, predicted.output_tokens)


def _add_penalties(
    scores: list[float],
    deployments: Sequence[Deployment],
    route: Route,
    facts: Facts,
    *,
    fails: frozenset[str],
    edge_last: bool,
) -> None:
    limit_s = route.objectives.final_first_token_s
    for place, deployment in enumerate(deployments):
        if deployment.id in fails:
            scores[place] += _FAILS
        if edge_last and deployment.is_edge:
            scores[place] += _EDGE
        if limit_s is not None:
            predicted = facts.predicted.get(deployment.id)
            if predicted is not None and predicted.first_token_s > limit_s:
                # Where all are late, the one that is least so: by then the weights are no comfort.
                scores[place] += _OVER * min(predicted.first_token_s / limit_s, _MOST_OVER)


def _chosen(
    order: Sequence[int], scores: Sequence[float], deployments: Sequence[Deployment], route: Route, facts: Facts
) -> int:
    """The place of the one that is asked first, out of those that are nearly the best."""
    margin = NEAR_WITH_PREFIX if route.prefix_affinity and facts.prefix else NEAR
    limit = scores[order[0]] + margin * (route.weight_latency + route.weight_cost)
    near = []
    for place in order:
        if scores[place] > limit:
            break
        near.append(place)
    if len(near) == 1:
        return near[0]
    if route.prefix_affinity and facts.prefix:
        return max(near, key=lambda place: zlib.crc32(deployments[place].id.encode(), facts.prefix))
    count = len(near)
    one = int(facts.draw * count) % count
    other = (one + 1 + int(facts.draw * count * (count - 1)) % (count - 1)) % count
    pair = sorted((one, other))
    return min((near[place] for place in pair), key=lambda place: _in_flight(deployments[place], facts))


def _in_flight(deployment: Deployment, facts: Facts) -> int:
    predicted = facts.predicted.get(deployment.id)
    return 0 if predicted is None else predicted.in_flight_tokens


def expected_cost(deployment: Deployment, facts: Facts) -> float:
    """What this request will most likely cost there, in millionths of a nano-dollar."""
    predicted = facts.predicted.get(deployment.id)
    if predicted is None or predicted.output_tokens is None:
        return worst_cost(deployment, facts)
    price = deployment.price
    return price.input_nanousd * facts.prompt_tokens + price.output_nanousd * _tokens(deployment, predicted, facts)


def worst_cost(deployment: Deployment, facts: Facts) -> int:
    """What this request costs there if the answer is as long as it may be, in millionths of a nano-dollar."""
    price = deployment.price
    output_tokens = facts.max_tokens or deployment.max_output_tokens
    return price.input_nanousd * facts.prompt_tokens + price.output_nanousd * output_tokens
