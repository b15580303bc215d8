"""Ranking against round robin and least busy, on recorded arrivals: `python -m tests.benchmarks.ranking`.

Replays ten minutes of real requests (arrival, prompt length, answer length) through four simulated backends of
different speed and price. Time is simulated, so a run is the same on every machine. A backend reads prompts one after
the other and then answers all that it has read side by side, each the slower the more they are.

The recorded code requests come in bursts, of up to 46,000 prompt tokens a second over ten seconds. Four backends that
read 18,000 together cannot keep up with that, whoever shares the requests out: the faster ones, which are the dearer
here, then have to take the larger part. Round robin is cheaper there because it does not: it lets the slowest queue for
two minutes. So the comparison is made with a fleet that can read a burst, four times as fast, and shown for both.
"""

from __future__ import annotations

import csv
import heapq
import itertools
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.backends.observed import Begun, Observed
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.facts import Facts
from gateway.policy.load import load_policy
from gateway.routing.decide import decide

DATA = Path(__file__).parents[1] / "data"
TRACES = {name: DATA / f"azure_llm_2023_{name}_10_minutes.csv" for name in ("conversation", "code")}
SEED = 2023

POLICY = """
backends:
  a: {type: openai, base_url: "http://a.example", region: x}
  b: {type: openai, base_url: "http://b.example", region: x}
  c: {type: openai, base_url: "http://c.example", region: x}
  d: {type: openai, base_url: "http://d.example", region: x}
models:
  large:
    - {backend: a, model: m, price: {input: 0.80, output: 1.20}, expect: {first_token: 200ms, per_token: 12ms}}
    - {backend: b, model: m, price: {input: 0.50, output: 0.80}, expect: {first_token: 300ms, per_token: 16ms}}
    - {backend: c, model: m, price: {input: 0.40, output: 0.60}, expect: {first_token: 400ms, per_token: 20ms}}
    - {backend: d, model: m, price: {input: 0.30, output: 0.50}, expect: {first_token: 900ms, per_token: 30ms}}
routes:
  - {name: all, mode: cloud_only, WISHES}
tenants:
  t: {keyless: true}
"""
BOTH = "optimize: {latency: 0.2, cost: 1.0}, objectives: {final_first_token: 1s}"
ALONE = {"by cost": "optimize: {cost: 1.0, latency: 0}", "by latency": "optimize: {latency: 1.0}"}


@dataclass
class Server:
    """A simulated backend."""

    tokens_per_s: float
    """Of prompts."""
    per_token_s: float
    """Of an answer, alone."""
    batch: int
    """Answers side by side at which each takes twice as long."""
    free_at: float = 0.0
    answering: int = 0

    def serve(self, now: float, prompt_tokens: int, output_tokens: int) -> tuple[float, float]:
        """When the first token comes, and when the last."""
        begins = max(now, self.free_at)
        self.free_at = begins + prompt_tokens / self.tokens_per_s
        first = self.free_at + 0.05
        return first, first + output_tokens * self.per_token_s * (1 + self.answering / self.batch)


def servers(size: int = 1) -> dict[str, Server]:
    """Four of them, by deployment: the dearest is the fastest. `size`: of how many such machines each is made."""
    return {
        "a/m": Server(8_000 * size, 0.012, 32 * size),
        "b/m": Server(5_000 * size, 0.016, 24 * size),
        "c/m": Server(3_500 * size, 0.020, 24 * size),
        "d/m": Server(1_500 * size, 0.030, 16 * size),
    }


@dataclass
class Result:
    """What came of a replay. Times in seconds, cost in US dollars."""

    first_token_s: list[float] = field(default_factory=list)
    cost_nanousd: int = 0
    requests: dict[str, int] = field(default_factory=dict)

    def quantile(self, share: float) -> float:
        """Of the times to the first token."""
        ordered = sorted(self.first_token_s)
        return ordered[int(share * (len(ordered) - 1))]

    @property
    def cost_usd(self) -> float:
        return self.cost_nanousd / 1e9


Choose = Callable[[float, int, dict[str, Server]], str]


def arrivals(trace: Path, load: float) -> Iterator[tuple[float, int, int]]:
    """The requests of a trace, `load` times as fast."""
    with trace.open() as lines:
        for row in csv.reader(line for line in lines if not line.startswith(("#", "seconds"))):
            yield float(row[0]) / load, int(row[1]), int(row[2])


def replay(
    trace: Path,
    choose: Choose,
    policy: CompiledPolicy,
    observed: Observed,
    clock: list[float],
    load: float,
    fleet: dict[str, Server],
) -> Result:
    """Send every request of the trace where `choose` says, and tell `observed` what came of it."""
    result = Result()
    coming: list[tuple[float, int, Callable[[], None]]] = []
    number = itertools.count()

    def until(now: float) -> None:
        while coming and coming[0][0] <= now:
            clock[0], _, happens = heapq.heappop(coming)
            happens()
        clock[0] = now

    for now, prompt_tokens, output_tokens in arrivals(trace, load):
        until(now)
        name = choose(now, prompt_tokens, fleet)
        server = fleet[name]
        first, last = server.serve(now, prompt_tokens, output_tokens)
        server.answering += 1
        begun = observed.begun(name, prompt_tokens)
        per_token_s = (last - first) / max(1, output_tokens - 1)
        heapq.heappush(coming, (first, next(number), lambda begun=begun: observed.first_token(begun)))
        heapq.heappush(coming, (last, next(number), _ending(observed, begun, server, per_token_s, output_tokens)))
        result.first_token_s.append(first - now)
        result.requests[name] = result.requests.get(name, 0) + 1
        price = policy.deployments[name].price
        result.cost_nanousd += price.cost_nanousd(input_tokens=prompt_tokens, output_tokens=output_tokens)
    return result


def _ending(observed: Observed, begun: Begun, server: Server, per_token_s: float, tokens: int) -> Callable[[], None]:
    def end() -> None:
        server.answering -= 1
        observed.ended(begun, per_token_s=per_token_s, output_tokens=tokens)

    return end


def compared(trace: Path, load: float = 1.0, size: int = 1, wishes: str = BOTH) -> dict[str, Result]:
    """The same requests sent in three ways, to backends of so many machines; `wishes` are the route's."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "policy.yaml").write_text(POLICY.replace("WISHES", wishes))
        policy = load_policy(Path(directory), {})
    names = list(policy.deployments)
    results = {}
    for way in ("round robin", "least busy", "ranking"):
        clock, turn, chance = [0.0], itertools.count(), random.Random(SEED)
        observed = Observed(lambda clock=clock: clock[0])
        observed.expect(policy.expected)

        def ranked(now: float, prompt_tokens: int, fleet: dict[str, Server], observed=observed, chance=chance) -> str:
            facts = Facts(
                tenant_name="t",
                model="large",
                prompt_tokens=prompt_tokens,
                predicted=observed.predictions(prompt_tokens),
                draw=chance.random(),
            )
            return decide(policy, facts).deployments[0].id

        def in_turn(now: float, prompt_tokens: int, fleet: dict[str, Server], turn=turn) -> str:
            return names[next(turn) % len(names)]

        def least_busy(now: float, prompt_tokens: int, fleet: dict[str, Server]) -> str:
            return min(names, key=lambda name: (fleet[name].answering, names.index(name)))

        choose = {"round robin": in_turn, "least busy": least_busy, "ranking": ranked}[way]
        results[way] = replay(trace, choose, policy, observed, clock, load, servers(size))
    return results


def main() -> None:
    """Print the table."""
    for name, trace in TRACES.items():
        for size, load in ((1, 0.5), (1, 1.0), (1, 1.5), (4, 1.0)):
            if size > 1 and name != "code":
                continue
            print(f"{name}, {load:g} times as fast as recorded, {size} machine(s) for each backend")
            results = compared(trace, load, size)
            if name == "code" and size == 1:
                results |= {way: compared(trace, load, size, wishes)["ranking"] for way, wishes in ALONE.items()}
            for way, result in results.items():
                spread = " ".join(f"{key[0]} {number}" for key, number in sorted(result.requests.items()))
                print(
                    f"  {way:12} first token p50 {result.quantile(0.5):6.2f} s  p95 {result.quantile(0.95):6.2f} s  "
                    f"p99 {result.quantile(0.99):6.2f} s  cost {result.cost_usd:.3f} USD  ({spread})"
                )


if __name__ == "__main__":
    main()
