"""What always holds of a decision, whatever the policy and the facts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from gateway.errors import PolicyError
from gateway.inference.deployment import Deployment
from gateway.inference.request import DraftWish
from gateway.policy.compile import CompiledPolicy, Mode
from gateway.policy.facts import Facts
from gateway.routing.decide import decide
from gateway.routing.decision import Decision
from gateway.routing.explain import as_json, explain
from tests.policy_folder import loaded

GPU, US, EDGE = "gpu-eu/meta-llama/Llama-3.3-70B", "openai-us/gpt-4.1", "edge/smollm2-135m-instruct"

# Conditions with what they mean in Python; None: cannot be evaluated.
CONDITIONS: dict[str, Callable[[Facts], bool | None]] = {
    "": lambda _: True,
    '"health" in request.labels': lambda facts: "health" in facts.labels | facts.tenant_labels,
    'tenant.region == "eu"': lambda facts: facts.tenant_region == "eu",
    "request.stream || request.tools": lambda facts: facts.stream or facts.tools,
    "budget.left < 0.5": lambda facts: facts.budget_left < 0.5,
    'request.metadata.team == "a"': lambda facts: facts.metadata["team"] == "a" if "team" in facts.metadata else None,
}
REQUIREMENTS: dict[str, Callable[[Deployment], bool]] = {
    "region: [eu-*]": lambda deployment: deployment.backend.region.startswith("eu-"),
    "region: [local, us-east]": lambda deployment: deployment.backend.region in {"local", "us-east"},
    "compliance: [no-egress]": lambda deployment: "no-egress" in deployment.backend.compliance,
    "compliance: [gdpr | no-egress]": lambda deployment: bool({"gdpr", "no-egress"} & deployment.backend.compliance),
    "region: ['*'], compliance: [gdpr, zero-retention]": lambda deployment: (
        {"gdpr", "zero-retention"} <= deployment.backend.compliance
    ),
}
RULES = st.lists(st.tuples(st.sampled_from(list(CONDITIONS)), st.sampled_from(list(REQUIREMENTS))), max_size=4)

LABELS = st.frozensets(st.sampled_from(["health", "personal", "other"]))
FACTS = st.builds(
    Facts,
    tenant_name=st.sampled_from(["acme", "guest"]),
    tenant_region=st.sampled_from(["", "eu", "us"]),
    tenant_labels=LABELS,
    feature=st.sampled_from(["", "chat", "batch", "autocomplete"]),
    model=st.sampled_from(["large", "small", "unknown"]),
    labels=LABELS,
    prompt_tokens=st.sampled_from([0, 10, 8_000, 10**7]),
    max_tokens=st.sampled_from([None, 1, 5_000]),
    stream=st.booleans(),
    tools=st.booleans(),
    images=st.booleans(),
    json_output=st.booleans(),
    logprobs=st.booleans(),
    n=st.sampled_from([1, 2]),
    metadata=st.sampled_from([{}, {"team": "a"}, {"team": "b"}]),
    budget_left=st.sampled_from([0.0, 0.5, 1.0]),
    unhealthy=st.frozensets(st.sampled_from([GPU, US, EDGE])),
    edge_ready=st.booleans(),
    edge_context_tokens=st.sampled_from([0, 8_192]),
    draft=st.sampled_from([None, *DraftWish]),
)
WILD_TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)
WILD_FACTS = st.builds(
    Facts,
    tenant_name=WILD_TEXT,
    tenant_region=WILD_TEXT,
    tenant_labels=st.frozensets(WILD_TEXT, max_size=3),
    feature=WILD_TEXT,
    model=st.one_of(WILD_TEXT, st.sampled_from(["large", "small"])),
    labels=st.frozensets(WILD_TEXT, max_size=3),
    prompt_tokens=st.integers(),
    max_tokens=st.one_of(st.none(), st.integers()),
    n=st.integers(),
    language=WILD_TEXT,
    metadata=st.dictionaries(WILD_TEXT, WILD_TEXT, max_size=3),
    hour=st.integers(),
    budget_left=st.floats(),
    unhealthy=st.frozensets(WILD_TEXT, max_size=3),
    edge_ready=st.booleans(),
    edge_context_tokens=st.integers(),
    draft=st.sampled_from([None, *DraftWish]),
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> CompiledPolicy:
    """The test folder, compiled."""
    return loaded(tmp_path_factory.mktemp("policies"))


def reachable(decision: Decision) -> dict[str, Deployment]:
    """Every deployment that the request may come to, in whatever way."""
    found = [*decision.deployments, *decision.spent, *([decision.draft] if decision.draft else [])]
    return {deployment.id: deployment for deployment in found}


def with_rules(rules: list[tuple[str, str]]) -> CompiledPolicy:
    """The test folder with these constraints instead of its own."""
    lines = ["constraints:" if rules else "constraints: []"]
    for number, (when, require) in enumerate(rules):
        lines.append(f"  - name: c{number}\n    require: {{{require}}}")
        lines += [f"    when: '{when}'"] if when else []
    with tempfile.TemporaryDirectory() as directory:
        try:
            return loaded(Path(directory), constraints="\n".join(lines))
        except PolicyError as refused:
            # Rules that leave a route or fallback nothing in any case are refused at load: no decisions to look at.
            dead = ("is never used here", "nothing is left for tenant")
            if all(any(words in mistake.message for words in dead) for mistake in refused.mistakes):
                reject()
            raise


@given(facts=WILD_FACTS)
def test_decide_is_total(policy: CompiledPolicy, facts: Facts):
    """Whatever the facts are, there is a decision: deployments, or a refusal, and never both."""
    decision = decide(policy, facts)
    assert bool(decision.deployments) == (decision.refusal is None)
    assert (decision.draft is None) == bool(decision.no_draft)
    assert len(reachable(decision)) <= len(policy.deployments)


@given(facts=FACTS)
def test_decide_is_deterministic_and_explain_agrees(policy: CompiledPolicy, facts: Facts):
    """Equal facts give equal decisions, and `explain` tells of that one in every field."""
    one, other = as_json(explain(policy, facts)), as_json(explain(policy, facts))
    assert one == other
    decision = decide(policy, facts)
    assert one["deployments"] == [deployment.id for deployment in decision.deployments]
    assert (one["mode"], one["no_draft"], one["reasons"]) == (decision.mode, decision.no_draft, list(decision.reasons))


@settings(deadline=None, max_examples=60)
@given(rules=RULES, facts=FACTS)
def test_nothing_reachable_breaks_a_constraint_that_applies(rules: list[tuple[str, str]], facts: Facts):
    """First choice, fallback, draft and downgrade all meet every constraint whose condition is true or an error."""
    for deployment in reachable(decide(with_rules(rules), facts)).values():
        for when, require in rules:
            if CONDITIONS[when](facts) is not False:
                assert REQUIREMENTS[require](deployment), (deployment.id, when, require)


@settings(deadline=None, max_examples=60)
@given(rules=RULES, more=RULES, facts=FACTS)
def test_more_constraints_never_widen(rules: list[tuple[str, str]], more: list[tuple[str, str]], facts: Facts):
    """Whatever is reachable under more constraints was reachable under fewer."""
    fewer, narrowed = decide(with_rules(rules), facts), decide(with_rules(rules + more), facts)
    assert reachable(narrowed).keys() <= reachable(fewer).keys()


@given(facts=FACTS)
def test_edge_only_reaches_only_the_edge(policy: CompiledPolicy, facts: Facts):
    """In mode edge_only, of a route without a fallback, no other deployment is reachable."""
    decision = decide(policy, facts)
    if decision.mode is Mode.EDGE_ONLY:
        assert all(deployment.is_edge for deployment in reachable(decision).values())


@given(facts=FACTS)
def test_what_the_request_needs_is_there(policy: CompiledPolicy, facts: Facts):
    """No deployment is asked for what it cannot do."""
    for deployment in reachable(decide(policy, facts)).values():
        assert not (facts.tools and not deployment.tools)
        assert not (facts.images and not deployment.images)
        assert not (facts.json_output and not deployment.json_output)
        assert not (deployment.is_edge and facts.n > 1)
