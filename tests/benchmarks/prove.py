"""How long loading and proving take: `python -m tests.benchmarks.prove`.

A policy of 200 rules whose requests are of astronomically many classes, once right and once with a leak; and one that
no search gets through, for what it costs to give up.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from gateway.policy.load import load_policy
from gateway.routing.prove import prove
from gateway.routing.proven import MOST_CHOICES_AT_LOAD

BACKENDS, MODELS, CONSTRAINTS, ROUTES, TENANTS, INVARIANTS = 20, 20, 100, 100, 50, 20


def policy(*, leak: bool = False, pigeons: int = 0) -> str:
    """One file. With `pigeons` it also says that so many do not fit into one hole less, which takes long to see."""
    lines = ["backends:", "  edge: {type: edge, model: smollm2-135m-instruct, region: local, compliance: [no-egress]}"]
    lines += [
        f"  b{n}: {{type: openai, base_url: 'http://b{n}', region: {('eu-west', 'us-east')[n % 2]}}}"
        for n in range(BACKENDS)
    ]
    lines += ["models:", "  small:", "    - {backend: edge}"]
    for m in range(MODELS):
        lines.append(f"  model{m}:")
        lines += [f"    - {{backend: b{(m + k) % BACKENDS}, model: m{m}, price: free}}" for k in range(5)]
    lines += ["tenants:", *(f"  t{n}: {{region: {('eu', 'us')[n % 2]}}}" for n in range(TENANTS)), "constraints:"]
    lines += [_rule("c", n, "lable49" if leak and n == 49 else f"label{n}") for n in range(CONSTRAINTS)]
    for number, when in enumerate(_pigeons(pigeons)):
        lines.append(f"  - {{name: p{number}, when: '{when}', require: {{region: [eu-*, local]}}}}")
    lines.append("routes:")
    for n in range(ROUTES - 1):
        when = f'request.feature == "f{n}" && request.prompt_tokens > {n * 10}'
        lines.append(f"  - {{name: r{n}, when: '{when}', mode: cloud_only, fallback: [small]}}")
    lines.append("  - {name: rest, mode: draft_refine, fallback: [small], when_budget_is_spent: edge_only}")
    lines += ["invariants:", *(_rule("i", n, f"label{n}") for n in range(INVARIANTS)), _rule("leak", 49, "label49")]
    lines += ["  - {name: pigeons, require: {region: [eu-*, local]}}"] if pigeons else []
    return "\n".join(lines)


def _rule(kind: str, number: int, label: str) -> str:
    when = f'tenant.region == "eu" && "{label}" in request.labels'
    return f"  - {{name: {kind}{number}, when: '{when}', require: {{region: [eu-*, local]}}}}"


def _pigeons(count: int) -> list[str]:
    holes = range(count - 1)
    rules = [" && ".join(f'!("q{one}h{hole}" in request.labels)' for hole in holes) for one in range(count)]
    for hole in holes:
        for one in range(count):
            rules += [f'"q{one}h{hole}" in request.labels && "q{two}h{hole}" in request.labels' for two in range(one)]
    return rules


def main() -> None:
    """Print the table."""
    situations = (("right", policy()), ("with a leak", policy(leak=True)), ("too hard", policy(pigeons=9)))
    for name, text in situations:
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "policy.yaml").write_text(text)
            started = time.perf_counter()
            loaded = load_policy(Path(directory), {})
            load_s = time.perf_counter() - started
        started = time.perf_counter()
        proof = prove(loaded, most_choices=MOST_CHOICES_AT_LOAD)
        prove_s = time.perf_counter() - started
        verdicts = [outcome.verdict for outcome in proof.outcomes]
        told = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
        print(
            f"{name:12} {len(loaded.constraints) + len(loaded.routes)} rules: loaded in {load_s:.2f} s, {told} in "
            f"{prove_s:.2f} s; {proof.classes:.1e} classes, {proof.choices:,} choices"
        )


if __name__ == "__main__":
    main()
