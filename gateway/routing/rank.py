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
from operator import itemgetter
from typing import NamedTuple

from gateway.inference.deployment import TOKENS_PER_PRICE, Deployment
from gateway.policy.compiled import CompiledPolicy, Route
from gateway.policy.facts import Facts
from gateway.policy.pools import Candidates

NONE: frozenset[str] = frozenset()
NEAR = 0.1
"""Of the sum of the weights: scores that differ by less are nearly equal."""
NEAR_WITH_PREFIX = 0.3
"""A warm prefix saves most of the prefill, so it is worth more than the difference between equals."""

_LATE_ALIKE, _LATER_BY_MOST = 3.0, 4.0
"""Where nobody can keep the objective, what takes up to so many times as long as the least late, and at most so many
times the objective longer, is as good as that: measured on recorded bursts (`tests.benchmarks.ranking`)."""

_FAILS, _EDGE, _OVER = 1e9, 1e6, 1e3
"""Added to scores, which stay far below: each outweighs all that come after it."""
_MOST_OVER = 900.0
_MOST_TOKENS = 2**60


def failing(policy: CompiledPolicy, facts: Facts) -> frozenset[str]:
    """The ids of what fails at the moment, as far as anybody knows; an edge is one of them until it is ready."""
    if (facts.edge_ready and not facts.edges) or not policy.edges:
        return facts.unhealthy
    return facts.unhealthy | {edge.id for edge in policy.edges if not facts.edge(edge.id).ready}


def is_by_order(route: Route) -> bool:
    """Where nothing fails, the policy's own order is the order, whatever the request."""
    objectives = route.objectives
    by_cost = route.weight_cost or objectives.cost_per_request_nanousd is not None
    by_time = route.optimizes or objectives.final_first_token_s is not None
    if route.prefix_affinity or route.pins:
        return False
    return not by_cost and not by_time


def by_order(candidates: Candidates, fails: frozenset[str], *, edge_last: bool) -> tuple[Deployment, ...]:
    """The policy's own order, but for what fails and, where it is only the fallback, the edge."""
    edge_last = edge_last and candidates.has_edge
    if not fails and not edge_last:
        return candidates.deployments
    return tuple(sorted(candidates.deployments, key=lambda at: (at.id in fails, edge_last and at.is_edge)))


def rank(
    candidates: Candidates, route: Route, facts: Facts, *, fails: frozenset[str] = NONE, edge_last: bool
) -> tuple[Deployment, ...]:
    """`candidates` with the best first; those in `fails` last. Equals keep their order."""
    deployments = candidates.deployments
    if len(deployments) < 2:
        return deployments
    if is_by_order(route):
        return by_order(candidates, fails, edge_last=edge_last)
    predicted = facts.predicted
    scores = _scores(candidates, route, facts)
    edge_last = edge_last and candidates.has_edge
    if fails or edge_last or route.objectives.final_first_token_s is not None:
        _add_penalties(scores, deployments, route, facts, fails=fails, edge_last=edge_last)
    order = sorted(range(len(scores)), key=scores.__getitem__)
    if route.prefix_affinity or (predicted and route.optimizes):
        first = _chosen(order, scores, deployments, route, facts)
        if first != order[0]:
            order.remove(first)
            order.insert(0, first)
    ranked: tuple[Deployment, ...] = itemgetter(*order)(deployments)
    return ranked


def _scores(candidates: Candidates, route: Route, facts: Facts) -> list[float]:
    deployments = candidates.deployments
    expected = _expected(candidates, facts) if route.optimizes and facts.predicted else None
    if expected is not None:
        scores = _expected_scores(expected, candidates, route, _bounded(facts.prompt_tokens))
    else:
        scale = route.weight_latency / float(len(deployments) - 1)
        if route.weight_cost:
            scores = _worst_scores(candidates, route.weight_cost, facts, scale=scale)
        else:
            scores = [scale * place for place in range(len(deployments))]
    most = route.objectives.cost_per_request_nanousd
    if most is not None:
        limit = most * TOKENS_PER_PRICE
        for place, deployment in enumerate(deployments):
            if worst_cost(deployment, facts) > limit:
                scores[place] += _OVER
    return scores


def _worst_scores(candidates: Candidates, weight: float, facts: Facts, *, scale: float) -> list[float]:
    """By place and by `worst_cost`, in one go: there may be a hundred."""
    rates = candidates.rates
    prompt_tokens, most = _bounded(facts.prompt_tokens), _bounded(facts.max_tokens or 0)
    if most:
        dearest = max([of_input * prompt_tokens + of_output * most for of_input, of_output, _, _ in candidates.dearest])
        per_cost = weight / (dearest or 1.0)
        per_input, per_output = per_cost * prompt_tokens, per_cost * most
        return [
            scale * place + per_input * of_input + per_output * of_output
            for place, (of_input, of_output, _, _) in enumerate(rates)
        ]
    dearest = max([of_input * prompt_tokens + of_longest for of_input, _, _, of_longest in candidates.dearest])
    per_cost = weight / (dearest or 1.0)
    per_input = per_cost * prompt_tokens
    return [
        scale * place + per_input * of_input + per_cost * of_longest
        for place, (of_input, _, _, of_longest) in enumerate(rates)
    ]


def _bounded(tokens: int) -> float:
    """A client may write a number that no float can hold."""
    return float(max(-_MOST_TOKENS, min(tokens, _MOST_TOKENS)))


class _Expected(NamedTuple):
    """What is expected of each candidate: seconds to the whole answer, and tokens of output."""

    seconds: list[float]
    tokens: list[float]


def _expected(candidates: Candidates, facts: Facts) -> _Expected | None:
    """From what is predicted; None where nothing is. Who is not known is taken for the best, so that it gets known.

    For the seconds all are taken to answer at the same length, the mean: a deployment is not quick for being brief.
    """
    predicted, most = facts.predicted, _bounded(facts.max_tokens or 0)
    known, lengths, total, count = [], [], 0.0, 0
    for deployment, rate in zip(candidates.deployments, candidates.rates, strict=True):
        one = predicted.get(deployment.id)
        tokens = most or rate[2]
        if one is not None:
            usual = one.output_tokens
            if usual is not None and usual < tokens:
                tokens = usual
            total += tokens
            count += 1
        known.append(one)
        lengths.append(tokens)
    if not count:
        return None
    length = total / count
    if count == len(known):
        return _Expected([one.first_token_s + one.per_token_s * length for one in known if one is not None], lengths)
    best = min([one.first_token_s + one.per_token_s * length for one in known if one is not None])
    seconds = [best if one is None else one.first_token_s + one.per_token_s * length for one in known]
    return _Expected(seconds, lengths)


def _expected_scores(expected: _Expected, candidates: Candidates, route: Route, prompt_tokens: float) -> list[float]:
    """By the time that the answer takes, and by what it will most likely cost."""
    seconds, tokens = expected
    scale = route.weight_latency / (max(seconds) or 1.0)
    if not route.weight_cost:
        return [scale * taken for taken in seconds]
    costs = [
        of_input * prompt_tokens + of_output * length
        for (of_input, of_output, _, _), length in zip(candidates.rates, tokens, strict=True)
    ]
    per_cost = route.weight_cost / (max(costs) or 1.0)
    return [scale * taken + per_cost * cost for taken, cost in zip(seconds, costs, strict=True)]


def _add_penalties(
    scores: list[float],
    deployments: Sequence[Deployment],
    route: Route,
    facts: Facts,
    *,
    fails: frozenset[str],
    edge_last: bool,
) -> None:
    for place, deployment in enumerate(deployments):
        if deployment.id in fails:
            scores[place] += _FAILS
        if edge_last and deployment.is_edge:
            scores[place] += _EDGE
    limit_s = route.objectives.final_first_token_s
    if limit_s is None:
        return
    known = [facts.predicted.get(deployment.id) for deployment in deployments]
    lateness = [0.0 if predicted is None else predicted.first_token_s / limit_s for predicted in known]
    least = min((late for late, at in zip(lateness, deployments, strict=True) if at.id not in fails), default=0.0)
    # Where all are late, those that are nearly the least so are alike, and the weights decide among them: a burst that
    # is too much for all would else be paid at the dearest's price.
    bar = 1.0 if least <= 1.0 else min(least * _LATE_ALIKE, least + _LATER_BY_MOST)
    for place, late in enumerate(lateness):
        if late > bar:
            scores[place] += _OVER * min(late, _MOST_OVER)


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


def worst_cost(deployment: Deployment, facts: Facts) -> int:
    """What this request costs there if the answer is as long as it may be, in millionths of a nano-dollar."""
    price = deployment.price
    output_tokens = facts.max_tokens or deployment.max_output_tokens
    return price.input_nanousd * facts.prompt_tokens + price.output_nanousd * output_tokens
