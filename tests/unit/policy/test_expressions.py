"""Conditions: what they see, and what an error in one of them means."""

from __future__ import annotations

import pytest

from gateway.policy.conditions import Conditions
from gateway.policy.expressions import Compiler, ExpressionError
from gateway.policy.facts import VARIABLES, Facts

FACTS = Facts(
    tenant_name="acme",
    tenant_region="eu",
    tenant_labels=frozenset({"paying"}),
    feature="chat",
    model="large",
    labels=frozenset({"personal"}),
    prompt_tokens=1200,
    max_tokens=50,
    stream=True,
    metadata={"team": "blue"},
    hour=14,
    budget_left=0.25,
    unhealthy=frozenset({"gpu-eu/llama"}),
    edge_ready=True,
)


def evaluate(*sources: str, facts: Facts = FACTS) -> list[bool | None]:
    """The outcomes of conditions compiled together."""
    compiler = Compiler()
    return Conditions(compiler, [compiler.compile(source) for source in sources]).evaluate(facts)


@pytest.mark.parametrize(
    "source",
    [
        'tenant.name == "acme" && tenant.region == "eu" && "paying" in tenant.labels',
        '"personal" in request.labels && "paying" in request.labels',
        'request.feature == "chat" && request.model == "large"',
        "request.prompt_tokens > 1000 && request.max_tokens == 50 && request.n == 1",
        "request.stream && !request.tools && !request.images && !request.audio",
        "!request.json_output && !request.logprobs",
        'request.metadata.team == "blue" && has(request.metadata.team) && !has(request.metadata.x)',
        "request.hour >= 9 && request.hour < 18",
        "budget.left < 0.3",
        '"gpu-eu/llama" in backend.unhealthy && backend.edge_ready',
        'request.labels.exists(label, label.startsWith("per"))',
        'request.language == ""',
        "true // a comment",
    ],
)
def test_condition_sees_the_facts(source: str):
    """Every documented variable is bound to its fact, alone and among others."""
    assert evaluate(source) == [True]
    assert evaluate("request.n == 2", source, "request.n == 1") == [False, True, True]


def test_every_variable_can_be_used_with_its_type():
    """The table of variables is true: each compiles with an expression of its type."""
    uses = {
        "string": '{} == ""',
        "int": "{} == 0",
        "double": "{} == 0.0",
        "bool": "{} == true",
        "list(string)": '"" in {}',
        "map(string, string)": 'has({}.x) && {}["x"] == ""',
    }
    for variable in VARIABLES:
        source = uses[variable.type].replace("{}", variable.name)
        assert evaluate(source, facts=Facts(tenant_name="", model=""))[0] is not None


@pytest.mark.parametrize(
    "source",
    [
        'request.metadata.missing == "x"',
        "1 / (request.prompt_tokens - 1200) == 1",
        'timestamp(request.feature) > timestamp("2026-01-01T00:00:00Z")',
        "request.labels.map(a, request.labels.map(b, a + b)).size() == request.prompt_tokens / 0",
    ],
)
def test_error_in_one_condition_is_none_and_leaves_the_others(source: str):
    """What cannot be evaluated is None: not a truthy error value, and nobody else's trouble."""
    assert evaluate("request.stream", source, "request.tools") == [True, None, False]


def test_endless_comprehension_is_bounded():
    """A condition that would take forever ends as one that could not be evaluated."""
    facts = Facts(tenant_name="a", model="m", labels=frozenset(str(number) for number in range(500)))
    source = "request.labels.all(a, request.labels.all(b, request.labels.all(c, a + b != c + 'q')))"
    assert evaluate(source, "request.n == 1", facts=facts) == [None, True]


@pytest.mark.parametrize(
    "broken", [{"feature": "\udc80"}, {"labels": frozenset({"\udcff"})}, {"metadata": {"\udc80": "x"}}]
)
def test_facts_that_are_no_text_fail_closed(broken: dict):
    """A header with broken bytes makes conditions about it None, and raises nothing."""
    facts = Facts(tenant_name="a", model="m", **broken)
    outcomes = evaluate('request.feature != "x" && !("x" in request.labels) && !has(request.metadata.x)', facts=facts)
    assert outcomes == [None]


def test_number_larger_than_cel_has_is_the_largest():
    """A client's absurd number compares as very large, not as an error."""
    facts = Facts(tenant_name="a", model="m", max_tokens=10**40, prompt_tokens=-(10**40))
    assert evaluate("request.max_tokens > 1000 && request.prompt_tokens < 0", facts=facts) == [True]


def test_many_conditions_give_the_same_together_as_alone():
    """Batches change the cost of conditions and nothing else."""
    sources = [f"request.prompt_tokens > {number * 10}" for number in range(300)]
    sources[150] = 'request.metadata.missing == "x"'
    expected: list[bool | None] = [number * 10 < 1200 for number in range(300)]
    expected[150] = None
    assert evaluate(*sources) == expected
    assert evaluate() == []


def test_expression_at_the_depth_limit_works_among_others():
    """A batch nests its expressions once more; one that is as deep as allowed is evaluated by itself."""
    deepest = next(
        source
        for depth in range(40, 0, -1)
        if (source := "(" * depth + "request.stream" + ")" * depth) and _compiles(source)
    )
    assert evaluate(deepest, "request.tools", deepest) == [True, False, True]


def _compiles(source: str) -> bool:
    try:
        Compiler().compile(source)
    except ExpressionError:
        return False
    return True


@pytest.mark.parametrize("source", ["a" * 5000, "\ud800", "true, false", "true) || (true", "", "'"])
def test_what_is_no_expression_is_refused_at_load(source: str):
    """Nothing but one whole expression compiles, so that joining them is safe."""
    with pytest.raises(ExpressionError):
        Compiler().compile(source)
