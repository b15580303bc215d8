"""Explaining: the same decision, with its whole story."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.policy.facts import Facts
from gateway.routing.decide import decide
from gateway.routing.explain import as_json, explain
from tests.policy_folder import FILES, loaded

FACTS = Facts(tenant_name="guest", model="large", labels=frozenset({"health"}), edge_ready=True)


def test_explanation_holds_the_decision_of_the_data_plane(tmp_path: Path):
    """The decision in it is the one that `decide` makes."""
    policy = loaded(tmp_path)
    assert explain(policy, FACTS).decision == decide(policy, FACTS)


def test_every_rule_and_deployment_has_its_line(tmp_path: Path):
    """Nothing of the policy is left out, and each line says what came of it."""
    explanation = explain(loaded(tmp_path), FACTS)
    assert [(rule.name, rule.outcome) for rule in explanation.constraints] == [
        ("eu-stays", "no match"),
        ("health-stays", "matches"),
    ]
    assert [(rule.name, rule.outcome) for rule in explanation.routes] == [
        ("autocomplete", "no match"),
        ("batch", "no match"),
        ("chat", "matches"),
    ]
    first, *others = explanation.deployments
    assert (first.id, first.place) == ("edge/smollm2-135m-instruct", 1)
    assert "used when the budget is spent" in first.why
    assert all("removed by constraint health-stays" in story.why for story in others)


def test_routes_behind_the_one_that_matched_were_not_reached(tmp_path: Path):
    """The first match ends the search."""
    facts = Facts(tenant_name="guest", model="large", feature="autocomplete")
    outcomes = [rule.outcome for rule in explain(loaded(tmp_path), facts).routes]
    assert outcomes == ["matches", "not reached", "not reached"]


def test_condition_that_cannot_be_evaluated_is_told_as_an_error(tmp_path: Path):
    """An error shows as one, with what follows from it."""
    text = "constraints: [{name: c, when: request.metadata.a == 'x', require: {compliance: [gdpr | no-egress]}}]"
    rule = explain(loaded(tmp_path, constraints=text), FACTS).constraints[0]
    assert rule.outcome == "error"
    assert rule.effect == "cannot be evaluated, so it applies: requires gdpr or no-egress"


def test_json_of_it_is_whole_and_without_secrets(tmp_path: Path):
    """As JSON it has the decision and the story, refusals included, and no key of a backend."""
    policy = loaded(tmp_path)
    served = json.dumps(as_json(explain(policy, FACTS)))
    refused = as_json(explain(policy, Facts(tenant_name="guest", model="nope")))
    assert "gpu-secret-value" not in served
    assert refused["refusal"]["status"] == 404
    assert json.loads(served)["deployments"] == ["edge/smollm2-135m-instruct"]
    assert len(json.loads(served)["why"]["deployments"]) == 3


def test_hedging_and_pinning_are_told(tmp_path):
    """A route says when a second deployment is asked, for how many requests, and that conversations stay."""
    routes = FILES["routes.yaml"].replace(
        "mode: cloud_only", "mode: hedge\n    hedge: {after: 800ms}\n    pin: conversation"
    )
    story = explain(loaded(tmp_path, routes=routes), Facts(tenant_name="acme", feature="batch", model="large"))
    (batch,) = [rule for rule in story.routes if rule.name == "batch"]
    assert "a second one asked after 0.8 s for 5% of the requests at most" in batch.effect
    assert "each conversation where it began" in batch.effect
    assert story.decision.mode.value == "hedge"
