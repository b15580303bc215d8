"""Decisions of routes in mode cascade."""

from __future__ import annotations

import pytest

from gateway.inference.request import DraftWish
from gateway.policy.compiled import CascadeRule, Mode
from gateway.routing.compare import compare
from gateway.routing.decide import decide
from gateway.routing.explain import as_json, explain
from gateway.routing.prove import prove
from tests.policy_folder import FILES, loaded
from tests.unit.routing.test_decide import EDGE, GPU, US, facts, ids

CASCADE = FILES["routes.yaml"].replace(
    "mode: draft_refine", "mode: cascade\n    cascade: {target_error: 0.05, within: 3s, when_uncalibrated: accept}"
)
RULE = CascadeRule(threshold=None, target_error=0.05, within_s=3.0, accepts_uncalibrated=True)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return loaded(tmp_path_factory.mktemp("policies"), routes=CASCADE)


@pytest.mark.parametrize("wish", list(DraftWish))
def test_the_edge_answers_first_whether_or_not_anybody_wants_to_see_it(policy, wish):
    """The draft is what may become the answer; the larger models stand behind it in their order."""
    decision = decide(policy, facts(draft=wish))
    assert (decision.mode, decision.cascade, decision.no_draft) == (Mode.CASCADE, RULE, "")
    assert (decision.draft.id, ids(decision)) == (EDGE, [GPU, US, EDGE])


@pytest.mark.parametrize(
    ("given", "no_draft"),
    [
        ({"tools": True}, "tools"),
        ({"n": 2}, "n"),
        ({"edge_ready": False}, "edge_not_ready"),
        ({"edge_wait_s": 60}, "queue"),
        ({"prompt_tokens": 8_100, "max_tokens": 1, "model": "large"}, "too_long"),
    ],
)
def test_where_the_edge_cannot_answer_the_larger_model_does(policy, given, no_draft):
    """The mode stays what the route says; the decision says why the edge was not asked."""
    decision = decide(policy, facts(**given))
    assert (decision.mode, decision.draft, decision.no_draft) == (Mode.CASCADE, None, no_draft)
    assert GPU in ids(decision) or US in ids(decision)
    assert any(no_draft in reason for reason in decision.reasons)


def test_constraints_hold_for_both_ends(tmp_path):
    """The edge is not asked where a constraint removed it, and no larger model that one removed."""
    only_clouds = "constraints: [{name: c, when: request.n == 1, require: {region: [eu-*, us-*]}}]"
    decision = decide(loaded(tmp_path / "a", routes=CASCADE, constraints=only_clouds), facts())
    assert (ids(decision), decision.draft, decision.no_draft) == ([GPU, US], None, "constraint")
    decision = decide(loaded(tmp_path / "b", routes=CASCADE), facts(labels=frozenset({"health"})))
    assert (decision.mode, ids(decision), decision.cascade) == (Mode.EDGE_ONLY, [EDGE], None)
    without = CASCADE.replace("    fallback: [small]\n", "")
    decision = decide(loaded(tmp_path / "c", routes=without), facts(labels=frozenset({"health"})))
    assert decision.refusal.status == 403


def test_answers_of_a_cascade_have_keys_of_their_own(policy, tmp_path):
    """The edge and the rule are in it, also while the edge has no time; not where the request may not go there."""
    edge = policy.edge
    usual = decide(policy, facts()).may_answer()
    assert edge.id in usual
    assert decide(policy, facts(edge_wait_s=60)).may_answer() == usual
    assert decide(policy, facts(edge_ready=False)).may_answer() == usual
    assert decide(policy, facts(tools=True)).may_answer() == (GPU, US)
    stricter = loaded(tmp_path / "a", routes=CASCADE.replace("0.05", "0.01"))
    assert decide(stricter, facts()).may_answer() != usual


def test_a_cascade_is_explained_and_compared(policy, tmp_path):
    """`policy explain` tells when the draft stands, `policy diff` that this has changed."""
    story = as_json(explain(policy, facts()))
    assert story["cascade"]["target_error"] == 0.05
    assert "asked first" in next(one["why"] for one in story["why"]["deployments"] if one["id"] == EDGE)
    stricter = loaded(tmp_path / "a", routes=CASCADE.replace("0.05", "0.01"))
    assert [change.what for change in compare(policy, stricter, [facts()]).changes] == ["cascade"]
    scoring = FILES["models.yaml"].replace("gpt-4.1\n", "gpt-4.1\n      scoring: {api: vllm}\n")
    routes = CASCADE.replace("    draft:", "    refine: {score: {least: -2}}\n    draft:")
    scores = loaded(tmp_path / "b", routes=routes, models=scoring)
    assert [change.what for change in compare(policy, scores, [facts()]).changes] == ["refine"]
    assert as_json(explain(scores, facts()))["refine"] == {"wait_s": 0.0, "quantile": 0.1, "least": -2.0}


@pytest.mark.parametrize("mode", ["cloud_only", "cascade\n    cascade: {threshold: 0.8}"])
def test_proofs_know_that_the_edge_answers_in_a_cascade(tmp_path, mode):
    """An invariant that the edge does not keep is broken by a route that only cascades to it, and by no other."""
    routes = f"routes:\n  - name: all\n    mode: {mode}\n    models: [large]\n"
    invariants = "invariants: [{name: cloud, require: {region: [eu-*, us-*]}}]\n"
    policy = loaded(tmp_path, routes=routes, constraints=invariants)
    (outcome,) = prove(policy).outcomes
    if mode == "cloud_only":
        assert outcome.verdict == "holds"
    else:
        assert (outcome.verdict, outcome.leak.deployment, outcome.leak.role) == ("broken", EDGE, "draft")
