"""What is remembered of conditions' outcomes."""

from __future__ import annotations

import tracemalloc

from gateway.policy.conditions import Conditions
from gateway.policy.expressions import Compiler
from gateway.policy.facts import Facts


def test_long_metadata_is_judged_and_not_kept() -> None:
    """Clients choose what their metadata says: it is not theirs to fill the gateway's memory with."""
    compiler = Compiler()
    sources = ('request.metadata.team.contains("x1")', 'request.metadata.team.size() > 3 && "b" in request.labels')
    conditions = Conditions(compiler, [compiler.compile(source) for source in sources])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(50):
            text = f"x{number}" + "y" * 100_000
            facts = Facts(tenant_name="t", model="m", metadata={"team": text}, labels=frozenset({"b"}))
            assert conditions.evaluate(facts) == [text.startswith("x1"), True]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1_000_000
