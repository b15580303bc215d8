"""Ranking: predicted times, prices, objectives, affinity, two choices; against simpler ways on recorded requests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from gateway.inference.prediction import Prediction
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.facts import Facts
from gateway.policy.load import load_policy
from gateway.routing.decide import decide
from tests.benchmarks.ranking import ALONE, TRACES, compared

ROUTE = "optimize: {latency: 1.0, cost: 0.0}"


def policy(directory: Path, route: str = ROUTE, *, prices: tuple[float, ...] = (1, 1, 1)) -> CompiledPolicy:
    """Three backends of one model; `route` is what the only route says of ranking."""
    lines = ["backends:"]
    lines += [f"  b{n}: {{type: openai, base_url: 'http://b{n}.example'}}" for n in range(len(prices))]
    lines += ["models:", "  m:"]
    lines += [f"    - {{backend: b{n}, model: m, price: {{input: {p}, output: {p}}}}}" for n, p in enumerate(prices)]
    lines += ["routes:", f"  - {{name: r, mode: cloud_only, {route}}}" if route else "  - {name: r, mode: cloud_only}"]
    directory.mkdir(exist_ok=True)
    (directory / "p.yaml").write_text("\n".join([*lines, "tenants: {t: {keyless: true}}"]))
    return load_policy(directory, {})


def predicted(*first_token_s: float, in_flight: tuple[int, ...] = (), output: float = 100) -> dict[str, Prediction]:
    """One for each backend, in order."""
    return {
        f"b{n}/m": Prediction(
            first_token_s=seconds,
            per_token_s=0.01,
            in_flight_tokens=in_flight[n] if in_flight else 0,
            output_tokens=output,
        )
        for n, seconds in enumerate(first_token_s)
    }


def order(compiled: CompiledPolicy, **given) -> list[str]:
    """The backends in the order in which they are asked."""
    facts = Facts(**{"tenant_name": "t", "model": "m", "prompt_tokens": 1_000, **given})
    return [deployment.backend.name for deployment in decide(compiled, facts).deployments]


def test_predicted_times_decide_where_the_route_optimizes(tmp_path: Path):
    """`optimize` ranks by what is predicted; a route without it keeps the policy's own order."""
    times = predicted(3.0, 1.0, 2.0)
    assert order(policy(tmp_path / "a"), predicted=times) == ["b1", "b2", "b0"]
    assert order(policy(tmp_path / "b", ""), predicted=times) == ["b0", "b1", "b2"]
    assert order(policy(tmp_path / "a")) == ["b0", "b1", "b2"]


def test_what_was_never_asked_is_taken_for_as_good_as_the_best(tmp_path: Path):
    """A deployment without measurements gets some: it stands with the best."""
    known = {name: one for name, one in predicted(1.0, 1.5, 5.0).items() if name != "b2/m"}
    assert "b2" in order(policy(tmp_path), predicted=known, draw=0.99)[:2]


def test_price_is_weighed_at_the_usual_length_of_an_answer(tmp_path: Path):
    """What an answer usually costs is weighed, what it may cost is held against the objective."""
    prices = (1, 2, 3)
    cheap = policy(tmp_path / "a", "optimize: {latency: 0.1, cost: 1.0}", prices=prices)
    assert order(cheap, predicted=predicted(2.0, 1.0, 0.5)) == ["b0", "b1", "b2"]
    limited = policy(tmp_path / "b", f"{ROUTE}, objectives: {{cost_per_request: 0.005}}", prices=prices)
    assert order(limited, predicted=predicted(3.0, 2.0, 1.0), max_tokens=1_000)[-1] == "b2"
    assert order(limited, predicted=predicted(3.0, 2.0, 1.0), max_tokens=100) == ["b2", "b1", "b0"]


def test_objective_on_the_first_token_puts_the_late_behind(tmp_path: Path):
    """What will be too late comes behind all that will not; where all are, weights choose among the least late."""
    route = "optimize: {latency: 0.1, cost: 1.0}, objectives: {final_first_token: 1s}"
    compiled = policy(tmp_path, route, prices=(1, 2, 3))
    assert order(compiled, predicted=predicted(2.0, 0.9, 0.5)) == ["b1", "b2", "b0"]
    assert order(compiled, predicted=predicted(19.0, 17.0, 2.0)) == ["b2", "b1", "b0"]
    assert order(compiled, predicted=predicted(19.0, 5.9, 2.0)) == ["b1", "b2", "b0"]


def test_of_two_drawn_among_near_equals_the_less_busy_is_asked(tmp_path: Path):
    """Near equals share the requests, and the busiest of them gets none."""
    compiled = policy(tmp_path)
    times = predicted(1.00, 1.01, 1.02, in_flight=(9_000, 100, 200))
    firsts = Counter(order(compiled, predicted=times, draw=place / 97)[0] for place in range(97))
    assert set(firsts) == {"b1", "b2"}
    far = predicted(1.0, 9.0, 9.0, in_flight=(9_000, 0, 0))
    assert {order(compiled, predicted=far, draw=place / 97)[0] for place in range(97)} == {"b0"}


def test_prefix_goes_to_one_place_among_near_equals(tmp_path: Path):
    """With `affinity: prefix` the same beginning goes to the same place, other beginnings to others; without, not."""
    compiled = policy(tmp_path / "a", f"{ROUTE}, affinity: prefix")
    times = predicted(1.0, 1.1, 1.2)
    places = [{order(compiled, predicted=times, prefix=n, draw=d / 7)[0] for d in range(7)} for n in range(1, 60)]
    assert all(len(place) == 1 for place in places)
    assert set().union(*places) == {"b0", "b1", "b2"}
    late = predicted(1.0, 1.1, 9.0)
    assert "b2" not in {order(compiled, predicted=late, prefix=n)[0] for n in range(1, 60)}
    gone = [order(compiled, predicted=times, prefix=n, unhealthy=frozenset({"b1/m"}))[0] for n in range(1, 60)]
    stayed = [place for place, now in zip(places, gone, strict=True) if place not in ({"b1"}, {now})]
    assert stayed == []


@pytest.mark.parametrize("load", [0.5, 1.0])
def test_ranking_beats_round_robin_and_least_busy_on_a_recorded_conversation(load: float):
    """On recorded arrivals: a lower p95 of the time to the first token, and a lower cost, than both."""
    results = compared(TRACES["conversation"], load)
    ranked = results.pop("ranking")
    for other in results.values():
        assert ranked.quantile(0.95) < other.quantile(0.95)
        assert ranked.cost_nanousd < other.cost_nanousd


def test_ranking_beats_them_on_recorded_code_where_the_fleet_can_read_its_bursts():
    """Bursts of 26 times the mean, on backends that can read them: a lower p95 and a lower cost than both."""
    results = compared(TRACES["code"], size=4)
    ranked = results.pop("ranking")
    for other in results.values():
        assert ranked.quantile(0.95) < other.quantile(0.95)
        assert ranked.cost_nanousd < other.cost_nanousd


def test_bursts_that_are_too_much_for_all_have_the_shortest_tail():
    """Where nobody can keep up the tail is still the shortest, and costs less than with the least busy.

    Not less than with round robin, which leaves the slowest and cheapest a queue of two minutes.
    """
    results = compared(TRACES["code"])
    ranked = results.pop("ranking")
    assert all(ranked.quantile(share) < other.quantile(share) for other in results.values() for share in (0.95, 0.99))
    assert ranked.cost_nanousd < results["least busy"].cost_nanousd


@pytest.mark.parametrize("load", [1.0, 1.5])
def test_whoever_wants_one_thing_alone_gets_it_in_any_burst(load: float):
    """Too much for all or not: by cost nobody is cheaper, and by latency nobody's tail is shorter."""
    by_cost = compared(TRACES["code"], load, 1, ALONE["by cost"])
    assert by_cost["ranking"].cost_usd < min(by_cost[way].cost_usd for way in ("round robin", "least busy"))
    by_latency = compared(TRACES["code"], load, 1, ALONE["by latency"])
    assert by_latency["ranking"].quantile(0.95) < min(
        by_latency[way].quantile(0.95) for way in ("round robin", "least busy")
    )
