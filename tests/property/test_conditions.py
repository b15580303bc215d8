"""Outcomes that are looked up are those that the library gives, whatever the condition and the request."""

from __future__ import annotations

import random

import msgspec
import pytest

from gateway.policy.clauses import clauses_of
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.conditions import Conditions
from gateway.policy.expressions import Compiler, bindings, outcome_of
from gateway.policy.facts import VARIABLES, Facts
from tests.policy_folder import loaded
from tests.property.random_requests import ATOMS, random_condition, random_facts

MORE_ATOMS = (
    'request.feature == "chät"',
    'request.feature != ""',
    'request.feature.contains("ä") || request.feature == "chat"',
    '"chat" == request.feature',
    'request.metadata[""] == "x"',
    '"" in request.metadata',
    'request.metadata["two words"] != "minors"',
    '"with space" in request.labels || "" in request.labels',
    'request.headers["x-region"] in ["eu", "us"]',
    "request.prompt_tokens in [1, 100, 1000]",
    "request.prompt_tokens == 9223372036854775807",
    "request.max_tokens != 64",
    "-1 < request.max_tokens && request.max_tokens <= 65",
    "budget.left == 0.1 || budget.left >= 0.5",
    "budget.left != 0.1",
    "budget.left < 1e300 && budget.left > -1e-300",
    "0.1 >= budget.left",
    "request.stream == true",
    "true != request.stream",
    "request.stream ? request.tools : request.images",
    'request.feature == "chat" ? budget.left > 0.5 : request.hour < 6',
    "request.tools && true",
    "request.feature in []",
    'tenant.region in ["", "eu"]',
    "request.feature in tenant.labels || request.feature == tenant.region",
    "size(request.feature) > 3",
    'request.feature < "m"',
    "request.stream == request.tools",
)
"""Beside those of `random_requests`: the odd ends of each type."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> CompiledPolicy:
    """The test folder, compiled."""
    return loaded(tmp_path_factory.mktemp("policies"))


def odd_facts(chance: random.Random, policy: CompiledPolicy) -> Facts:
    """A random request, now and then with values at the edge of their type, or beyond."""
    usual = random_facts(chance, policy)
    odd = {
        "feature": ("chät", "😀", "x" * 5_000),
        "budget_left": (float("nan"), float("inf"), -0.0, 0.1, 0.1 + 2**-56),
        "prompt_tokens": (0, -1, 1, 100, 2**63 - 1, 2**63, -(2**70), 999, 1_000, 1_001),
        "max_tokens": (2**64, 0, -5, 64, 65),
        "hour": (0, 5, 6, 23),
        "metadata": ({"": "x"}, {"two words": "minors"}, {"audience": ""}, {"audience": "mïnors", "team": "a"}),
        "headers": ({"x-region": "eu"}, {"x-region": "EU"}),
        "labels": (frozenset({""}), frozenset({"with space", "health", "personal", "öther"})),
    }
    changed = {name: chance.choice(values) for name, values in odd.items() if chance.random() < 0.25}
    return msgspec.structs.replace(usual, **changed)


def test_looked_up_outcomes_are_those_of_the_library(policy: CompiledPolicy):
    """500 random conditions together, over random and odd requests: each outcome is what the library says alone."""
    chance = random.Random(30)
    compiler = Compiler()
    sources = [*ATOMS, *MORE_ATOMS, *(f"!({atom})" for atom in (*ATOMS, *MORE_ATOMS))]
    sources += [random_condition(chance, depth) for depth in (1, 2, 3) for _ in range(100)]
    sources += [
        f"({chance.choice(MORE_ATOMS)}) {chance.choice(('&&', '||'))} !({random_condition(chance, 1)})"
        for _ in range(100)
    ]
    compiled = [compiler.compile(source) for source in sources]
    assert sum(clauses_of(condition.tree) is not None for condition in compiled) > len(sources) / 2
    conditions = Conditions(compiler, compiled)
    seen = {True: 0, False: 0, None: 0}
    for _ in range(150):
        facts = odd_facts(chance, policy)
        activation = compiler.environment.Activation(bindings(facts, VARIABLES))
        for condition, outcome in zip(compiled, conditions.evaluate(facts), strict=True):
            assert outcome is outcome_of(condition.expression, activation), (condition.source, facts)
            seen[outcome] += 1
    assert min(seen.values()) > 1_000


@pytest.mark.parametrize("odd", ["\ud800", "a\0b"])
def test_what_is_no_text_is_an_error_and_is_not_remembered(odd: str):
    """A request with broken Unicode, or a NUL, fails closed, and the same without it does not inherit that."""
    compiler = Compiler()
    sources = ('request.metadata.team == "a"', 'request.metadata.team.matches("^a$")')
    conditions = Conditions(compiler, [compiler.compile(source) for source in sources])
    whole = Facts(tenant_name="acme", model="large", metadata={"team": "a"})
    broken = msgspec.structs.replace(whole, metadata={"team": "a", "other": odd})
    assert conditions.evaluate(broken) == [None, None]
    assert conditions.evaluate(whole) == [True, True]
    assert conditions.evaluate(broken) == [None, None]
