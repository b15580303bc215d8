"""How long a decision takes: `python -m tests.benchmarks.decide`.

Prints microseconds of CPU for 50 routes, 50 constraints and 100 deployments, in the situations that cost most: when a
kind of request comes for the first time under this policy, and when it was seen before.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from gateway.inference.prediction import Prediction
from gateway.inference.request import DraftWish
from gateway.policy.compile import CompiledPolicy
from gateway.policy.facts import Facts
from gateway.policy.load import load_policy
from gateway.routing.decide import decide

ROUTES = CONSTRAINTS = 50
DEPLOYMENTS = 100
ROUNDS, CALLS = 15, 400


def write(directory: Path, *, models: int) -> CompiledPolicy:
    """A policy of that size, its deployments spread over `models` public models."""
    backends = [
        "backends:",
        "  edge: {type: edge, model: smollm2-135m-instruct, region: local, compliance: [no-egress]}",
    ]
    for number in range(20):
        region = ("eu-west", "eu-north", "us-east", "us-west")[number % 4]
        terms = "gdpr, soc2" if number % 4 < 2 else "soc2"
        backends.append(
            f"  b{number}: {{type: openai, base_url: 'http://b{number}', region: {region}, compliance: [{terms}]}}"
        )
    named: dict[int, list[str]] = {}
    for number in range(DEPLOYMENTS - 1):
        entry = (
            f"    - {{backend: b{number % 20}, model: m{number}, price: {{input: 0.{number + 1}, output: 1.{number}}}}}"
        )
        named.setdefault(number % models, []).append(entry)
    lines = ["models:", "  small:", "    - {backend: edge}"]
    for number, entries in named.items():
        lines += [f"  model{number}:", *entries]
    constraints = ["constraints:"]
    for number in range(CONSTRAINTS):
        constraints.append(f"  - name: c{number}")
        constraints.append(f'    when: tenant.region == "eu" && "label{number}" in request.labels')
        constraints.append("    require: {region: [eu-*, local], compliance: [gdpr | no-egress]}")
    routes = ["routes:"]
    for number in range(ROUTES - 1):
        when = f'request.feature == "feature{number}" && request.prompt_tokens > {number}'
        routes += [f"  - name: r{number}", f"    when: '{when}'", "    mode: cloud_only"]
    routes += ["  - {name: rest, mode: draft_refine, fallback: [small], optimize: {latency: 1.0, cost: 0.5}}"]
    for file, text in (("b", backends), ("m", lines), ("c", constraints), ("r", routes)):
        (directory / f"{file}.yaml").write_text("\n".join(text))
    return load_policy(directory, {})


def microseconds(call: Callable[[], object]) -> tuple[float, float]:
    """The median and the best of several rounds, in microseconds of CPU a call."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(CALLS):
            call()
        rounds.append((time.process_time() - started) / CALLS * 1e6)
    return statistics.median(rounds), min(rounds)


def _decide_anew(policy: CompiledPolicy, facts: Facts) -> None:
    """Without what was found out for requests of the same kind."""
    policy.memo.forget()
    policy.conditions.forget()
    decide(policy, facts)


def main() -> None:
    """Print the table."""
    plain = Facts(
        tenant_name="acme", tenant_region="us", feature="chat", model="model0", prompt_tokens=500, edge_ready=True
    )
    narrowed = Facts(
        tenant_name="acme",
        tenant_region="eu",
        feature="chat",
        model="model0",
        labels=frozenset({"label3", "label7", "other"}),
        metadata={"team": "a"},
        prompt_tokens=500,
        stream=True,
        edge_ready=True,
        edge_context_tokens=8192,
        draft=DraftWish.FRAMES,
    )
    for models in (20, 1):
        with tempfile.TemporaryDirectory() as directory:
            started = time.perf_counter()
            policy = write(Path(directory), models=models)
            load_s = time.perf_counter() - started
        share = len(policy.models["model0"])
        known = {
            name: Prediction(first_token_s=0.1 + place % 7 / 10, per_token_s=0.02, output_tokens=200.0)
            for place, name in enumerate(policy.deployments)
        }
        predicted = msgspec.structs.replace(plain, predicted=known, draw=0.5)
        print(f"{policy.counts} ({share} deployments in the model; written and loaded in {load_s * 1e3:.0f} ms)")
        for name, facts in (
            ("no constraint applies", plain),
            ("two constraints apply, a draft", narrowed),
            ("no constraint, all predicted", predicted),
        ):
            whole, best = microseconds(partial(decide, policy, facts))
            anew, best_anew = microseconds(partial(_decide_anew, policy, facts))
            print(
                f"  {name:32} first time {anew:5.1f} µs (best {best_anew:.1f}); "
                f"seen before {whole:5.1f} µs (best {best:.1f})"
            )


if __name__ == "__main__":
    main()
