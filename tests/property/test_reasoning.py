"""What is said about all requests is true of each."""

from __future__ import annotations

import dataclasses
import random

import pytest

from gateway.errors import PolicyError
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.evaluate import Failed, NotKnown, value_of
from gateway.policy.expressions import Compiler, bindings, outcome_of
from gateway.policy.facts import VARIABLES
from gateway.policy.outcomes import ERROR, FALSE, TRUE, Formulas
from gateway.policy.reach import ways
from gateway.policy.search import Effort, TooLarge, Wanted, search
from gateway.policy.space import Space, TenantFacts
from gateway.routing.decide import decide
from gateway.routing.prove import facts_of, leak_of, prove, reachable
from tests.policy_folder import loaded
from tests.property.random_requests import random_condition, random_facts

BITS = {True: TRUE, False: FALSE, None: ERROR}


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> CompiledPolicy:
    """The test folder, compiled."""
    return loaded(tmp_path_factory.mktemp("policies"))


def test_conditions_are_worth_what_the_library_says(policy: CompiledPolicy):
    """A condition that is evaluated here has the library's outcome, errors included, or is not known."""
    chance = random.Random(4)
    compiler = Compiler()
    known = 0
    for _ in range(400):
        condition = compiler.compile(random_condition(chance))
        for _ in range(10):
            names = bindings(random_facts(chance, policy), VARIABLES)
            expected = outcome_of(condition.expression, compiler.environment.Activation(names))
            try:
                found = value_of(condition.tree, names)
            except Failed:
                found = None
            except NotKnown:
                continue
            known += 1
            assert found is expected, (condition.source, names)
    assert known > 2_000


def test_search_finds_every_outcome_that_some_request_has(policy: CompiledPolicy):
    """When a request gives two conditions two outcomes, the search says that such requests are possible."""
    chance = random.Random(5)
    compiler = Compiler()
    tenants = [TenantFacts(name, each.tenant.region, each.tenant.labels) for name, each in policy.tenants.items()]
    exact = 0
    for _ in range(250):
        conditions = [compiler.compile(random_condition(chance, 2)) for _ in range(2)]
        space = Space(
            [condition.tree for condition in conditions],
            tenants=tenants,
            models=list(policy.models),
            deployments=list(policy.deployments),
        )
        maker = Formulas(space, strict=True)
        formulas = [maker.make(condition.tree) for condition in conditions]
        seen = set()
        for _ in range(60):
            facts = random_facts(chance, policy)
            if facts.model in policy.models:
                seen.add(tuple(BITS[policy.conditions.outcome(condition, facts)] for condition in conditions))
        for one in (TRUE, FALSE, ERROR):
            for other in (TRUE, FALSE, ERROR):
                wanted = [Wanted(formulas[0], one), Wanted(formulas[1], other)]
                try:
                    found = next(search(space, wanted, Effort(10_000)), None)
                except TooLarge:
                    continue
                assert found is not None or (one, other) not in seen, [condition.source for condition in conditions]
                if found is not None and not maker.free:
                    facts = facts_of(found, space)
                    got = tuple(BITS[policy.conditions.outcome(condition, facts)] for condition in conditions)
                    assert got == (one, other), [condition.source for condition in conditions]
                    exact += 1
    assert exact > 200


def test_decision_reaches_only_what_its_route_may_use(policy: CompiledPolicy):
    """The proof's upper bound holds: every deployment of a decision is one of the ways of its route."""
    chance = random.Random(6)
    routes = {route.name: route for route in policy.routes}
    for _ in range(3_000):
        facts = random_facts(chance, policy)
        decision = decide(policy, facts)
        if decision.refusal is None:
            possible = {way.deployment.id for way in ways(policy, routes[decision.route], facts.model)}
            assert {deployment.id for deployment, _ in reachable(decision)} <= possible


def test_no_random_request_breaks_what_is_proved(tmp_path):
    """Random policies, random invariants: what is proved is broken by no request, and what is broken is by its own."""
    chance = random.Random(7)
    verdicts = []
    for number in range(60):
        constraints = "\n".join(
            f"  - {{name: c{place}, when: {_quoted(random_condition(chance, 2))}, require: {{{need}}}}}"
            for place, need in enumerate(("region: [eu-*, local]", "compliance: [no-egress]"))
        )
        wanted = chance.choice(("region: [eu-*, local]", "compliance: [no-egress | gdpr]"))
        same = chance.random() < 0.5
        when = constraints.split("when: ")[1].split(", require")[0] if same else _quoted(random_condition(chance, 1))
        try:
            policy = loaded(
                tmp_path / str(number),
                constraints=f"constraints:\n{constraints}",
                invariants=f"invariants: [{{name: i, when: {when}, require: {{{wanted}}}}}]",
            )
        except PolicyError:  # a random rule may be one that can never do anything
            continue
        (outcome,) = prove(policy, most_choices=50_000).outcomes
        verdicts.append(outcome.verdict)
        if outcome.verdict == "holds":
            for _ in range(300):
                assert leak_of(policy, policy.invariants[0], random_facts(chance, policy)) is None
        elif outcome.leak is not None:
            assert leak_of(policy, policy.invariants[0], outcome.leak.facts) is not None
    assert {"holds", "broken"} <= set(verdicts)
    assert len(verdicts) > 30


def _quoted(condition: str) -> str:
    return "'" + condition.replace("'", "''") + "'"


def test_facts_of_a_policy_never_change_what_it_proves(policy: CompiledPolicy):
    """A proof is a pure function: twice the same."""
    again = dataclasses.replace(policy)
    assert prove(policy) == prove(again)
