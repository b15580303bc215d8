"""Deciding: constraints, routes, capabilities, drafts, downgrades, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gateway.errors import InvalidRequest, NoDeployment, PolicyDenied, UnknownModel
from gateway.inference.request import DraftWish
from gateway.policy.compile import CompiledPolicy, Mode
from gateway.policy.facts import Facts
from gateway.routing.decide import decide
from gateway.routing.decision import Decision
from tests.policy_folder import FILES, loaded

GPU, US, EDGE = "gpu-eu/meta-llama/Llama-3.3-70B", "openai-us/gpt-4.1", "edge/smollm2-135m-instruct"


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> CompiledPolicy:
    """The test folder, compiled."""
    return loaded(tmp_path_factory.mktemp("policies"))


def facts(**given) -> Facts:
    """An ordinary chat request of a tenant without a region, on a warm edge."""
    usual = {
        "tenant_name": "guest",
        "model": "large",
        "feature": "chat",
        "edge_ready": True,
        "edge_context_tokens": 8192,
    }
    return Facts(**{**usual, **given})


def ids(decision: Decision) -> list[str]:
    """The ids of its deployments."""
    return [deployment.id for deployment in decision.deployments]


def test_first_route_that_matches_decides(policy: CompiledPolicy):
    """Routes are tried in the order of the file; one without a condition matches what is left."""
    assert decide(policy, facts(feature="autocomplete")).route == "autocomplete"
    assert decide(policy, facts(feature="batch")).route == "batch"
    other = decide(policy, facts(feature="anything"))
    assert (other.route, other.mode, other.policy_version) == ("chat", Mode.DRAFT_REFINE, policy.version)
    assert ids(other) == [GPU, US, EDGE]
    assert other.first_choices == 2
    assert other.removed == ()


def test_model_of_the_client_is_used_where_the_route_names_none(policy: CompiledPolicy):
    """Without `models` a route serves what the client named; with it, what the route names."""
    assert ids(decide(policy, facts(model="small"))) == [EDGE]
    assert ids(decide(policy, facts(model="small", feature="batch"))) == [GPU, US]


def test_unknown_model_is_404_with_the_nearest_name(policy: CompiledPolicy):
    """A name that policy does not have is refused, even on a route that names its own models."""
    decision = decide(policy, facts(model="lagre", feature="batch"))
    assert isinstance(decision.refusal, UnknownModel)
    assert "did you mean `large`?" in decision.refusal.message
    assert decision.deployments == ()
    assert decision.refusal.param == "model"


def test_constraint_narrows_fallback_draft_and_downgrade_as_well(policy: CompiledPolicy):
    """What a constraint removed is removed everywhere."""
    decision = decide(policy, facts(tenant_region="eu", labels=frozenset({"personal"}), draft=DraftWish.FRAMES))
    assert ids(decision) == [GPU, EDGE]
    assert decision.draft is not None
    assert [(removal.deployment, removal.by) for removal in decision.removed] == [(US, "eu-stays")]
    assert "constraint `eu-stays` applies" in decision.reasons


def test_constraints_that_leave_the_edge_make_the_mode_edge_only(policy: CompiledPolicy):
    """draft_refine with nothing but the edge left is edge_only, with the reason."""
    decision = decide(policy, facts(labels=frozenset({"health"}), draft=DraftWish.FRAMES))
    assert (ids(decision), decision.mode, decision.no_draft) == ([EDGE], Mode.EDGE_ONLY, "mode")
    assert any("only the edge is left" in reason for reason in decision.reasons)
    assert decision.first_choices == 1


def test_tenant_label_counts_as_a_label_of_the_request(policy: CompiledPolicy):
    """A label that the tenant has cannot be left out by the request."""
    decision = decide(policy, facts(tenant_labels=frozenset({"health"})))
    assert ids(decision) == [EDGE]


def test_refusal_names_what_removed_each_candidate(policy: CompiledPolicy):
    """403 when a constraint removed any of them; the message has each deployment, its remover and the reason."""
    decision = decide(policy, facts(labels=frozenset({"health"}), tools=True))
    assert isinstance(decision.refusal, PolicyDenied)
    for words in (GPU, US, EDGE, "constraint `health-stays`", "`tools`", "no-egress"):
        assert words in decision.refusal.message
    assert decision.deployments == decision.spent == ()
    assert decision.draft is None


def test_request_that_nothing_can_serve_is_400(policy: CompiledPolicy):
    """Without a constraint to blame it is the request that asks for what its model cannot do."""
    decision = decide(policy, facts(model="small", tools=True))
    assert isinstance(decision.refusal, InvalidRequest)
    assert decision.refusal.param == "tools"


def test_no_matching_route_is_403(tmp_path: Path):
    """A policy whose routes leave a request out refuses it, and says what would match."""
    policy = loaded(tmp_path, routes="routes: [{name: a, when: request.stream, mode: cloud_only}]")
    decision = decide(policy, facts())
    assert isinstance(decision.refusal, PolicyDenied)
    assert "without `when`" in decision.refusal.message


def test_condition_that_fails_applies_a_constraint_and_passes_over_a_route(tmp_path: Path):
    """An error narrows, and never opens."""
    policy = loaded(
        tmp_path,
        constraints="constraints: [{name: c, when: request.metadata.a == 'x', require: {region: [local]}}]",
        routes="""routes:
  - {name: r, when: request.metadata.a == 'x', mode: cloud_only}
  - {name: rest, mode: cloud_only, fallback: [small]}
""",
    )
    decision = decide(policy, facts())
    assert (decision.route, ids(decision)) == ("rest", [EDGE])
    assert sum("could not be evaluated" in reason for reason in decision.reasons) == 2
    assert ids(decide(policy, facts(metadata={"a": "y"}))) == [GPU, US, EDGE]


@pytest.mark.parametrize(
    ("asks", "removed_by"),
    [
        ({"tools": True}, "tools"),
        ({"images": True}, "images"),
        ({"audio": True}, "audio"),
        ({"json_output": True}, "json"),
        ({"n": 2}, "n"),
    ],
)
def test_edge_serves_plain_text_only(policy: CompiledPolicy, asks: dict, removed_by: str):
    """What the edge cannot do removes it from the fallback, and no draft is made."""
    decision = decide(policy, facts(draft=DraftWish.FRAMES, **asks))
    assert ids(decision) == [GPU, US]
    assert [(removal.deployment, removal.by) for removal in decision.removed] == [(EDGE, removed_by)]
    assert (decision.draft, decision.no_draft) == (None, removed_by)


def test_edge_gives_log_probabilities_of_its_answers_but_of_no_draft(policy: CompiledPolicy):
    """It stays a fallback for who asks for them; a draft, whose frames have no place for them, is not made."""
    decision = decide(policy, facts(draft=DraftWish.FRAMES, logprobs=True))
    assert ids(decision) == [GPU, US, EDGE]
    assert (decision.draft, decision.no_draft) == (None, "logprobs")


def test_deployment_says_what_it_cannot_do(tmp_path: Path):
    """`tools: false` on a deployment removes it from requests with tools only."""
    policy = loaded(
        tmp_path, models=FILES["models.yaml"].replace("model: gpt-4.1\n", "model: gpt-4.1\n      tools: false\n")
    )
    assert US in ids(decide(policy, facts()))
    assert US not in ids(decide(policy, facts(tools=True)))


def test_long_prompt_goes_where_it_fits(policy: CompiledPolicy):
    """Prompt and answer together must fit; what has no stated context takes all."""
    assert ids(decide(policy, facts(prompt_tokens=7_999))) == [GPU, US, EDGE]
    assert ids(decide(policy, facts(prompt_tokens=7_999, max_tokens=2))) == [US, EDGE]
    decision = decide(policy, facts(prompt_tokens=8_192))
    assert ids(decision) == [US]
    assert {removal.by for removal in decision.removed} == {"context"}


@pytest.mark.parametrize(
    ("given", "no_draft"),
    [
        ({}, "not_asked"),
        ({"draft": DraftWish.OFF}, "not_asked"),
        ({"draft": DraftWish.FRAMES}, ""),
        ({"draft": DraftWish.REASONING, "stream": True}, ""),
        ({"draft": DraftWish.FRAMES, "edge_ready": False}, "edge_not_ready"),
        ({"draft": DraftWish.FRAMES, "unhealthy": frozenset({EDGE})}, "edge_not_ready"),
        ({"draft": DraftWish.FRAMES, "prompt_tokens": 8_093}, "too_long"),
        ({"draft": DraftWish.FRAMES, "prompt_tokens": 8_092, "max_tokens": 1}, ""),
        ({"draft": DraftWish.FRAMES, "edge_wait_s": 1.4}, ""),
        ({"draft": DraftWish.FRAMES, "edge_wait_s": 1.6}, "queue"),
        ({"draft": DraftWish.FRAMES, "feature": "batch"}, "mode"),
        ({"draft": DraftWish.FRAMES, "model": "small"}, "mode"),
    ],
)
def test_draft_is_made_or_the_decision_says_why_not(policy: CompiledPolicy, given: dict, no_draft: str):
    """There is a draft exactly when there is no reason against one, and it is on the edge."""
    decision = decide(policy, facts(**given))
    assert decision.no_draft == no_draft
    assert (decision.draft is None) == bool(no_draft)
    if decision.draft is not None:
        assert (decision.draft.id, decision.draft_max_tokens) == (EDGE, 100)


def test_route_can_show_drafts_by_default_or_forbid_them(tmp_path: Path):
    """`default` stands in for a client that says nothing; `allow: false` outranks its wish."""
    shown = loaded(tmp_path / "a", routes=FILES["routes.yaml"].replace("default: off", "default: reasoning"))
    assert decide(shown, facts()).draft_wish is DraftWish.REASONING
    assert decide(shown, facts(stream=True)).draft is not None
    assert decide(shown, facts(draft=DraftWish.OFF)).draft is None
    barred = loaded(tmp_path / "b", routes=FILES["routes.yaml"].replace("default: off", "allow: false"))
    assert decide(barred, facts(draft=DraftWish.FRAMES)).no_draft == "route"


def test_edge_writes_json_where_policy_says_so(tmp_path: Path):
    """`json_output: true` on the edge's deployment lets it draft and answer under a grammar; without it, neither."""
    asked = facts(json_output=True, draft=DraftWish.FRAMES)
    without = decide(loaded(tmp_path / "a"), asked)
    assert (without.no_draft, EDGE in ids(without)) == ("json", False)
    models = FILES["models.yaml"].replace("{backend: edge}", "{backend: edge, json_output: true}")
    allowed = decide(loaded(tmp_path / "b", models=models), asked)
    assert (allowed.draft is not None, EDGE in ids(allowed)) == (True, True)


def test_constraint_can_forbid_the_draft(tmp_path: Path):
    """A constraint that the edge does not meet takes the draft away and leaves the final."""
    policy = loaded(
        tmp_path, constraints="constraints: [{name: c, when: request.n == 1, require: {region: [eu-*, us-*]}}]"
    )
    decision = decide(policy, facts(draft=DraftWish.FRAMES))
    assert (ids(decision), decision.no_draft) == ([GPU, US], "constraint")
    assert decision.spent == ()


def test_spent_budget_goes_to_the_edge_where_the_route_says_so(policy: CompiledPolicy):
    """`edge_only`: the edge, through the same constraints and capabilities."""
    decision = decide(policy, facts())
    assert [deployment.id for deployment in decision.spent] == [EDGE]
    assert decision.spent_mode is Mode.EDGE_ONLY
    assert decide(policy, facts(tools=True)).spent == ()


def test_spent_budget_goes_to_what_is_cheaper(policy: CompiledPolicy):
    """`cheapest`: what costs less than the first choice, of what the constraints left; without such, refused."""
    dear_first = decide(policy, facts(feature="batch", unhealthy=frozenset({GPU})))
    assert ids(dear_first) == [US, GPU]
    assert [deployment.id for deployment in dear_first.spent] == [GPU]
    assert dear_first.spent_mode is Mode.CLOUD_ONLY
    assert decide(policy, facts(feature="batch")).spent == ()


def test_route_that_rejects_has_nothing_for_a_spent_budget(policy: CompiledPolicy):
    """`reject` is the default."""
    assert decide(policy, facts(feature="autocomplete")).spent == ()


def test_edge_only_uses_the_edge_whatever_the_model(policy: CompiledPolicy):
    """A model without a deployment on the edge is answered by the policy's edge."""
    decision = decide(policy, facts(feature="autocomplete", model="large"))
    assert (ids(decision), decision.mode) == ([EDGE], Mode.EDGE_ONLY)


def test_edge_only_without_an_edge_that_is_ready_still_asks_it(policy: CompiledPolicy):
    """Nothing else is left: the edge may be warm by the time it is asked."""
    assert ids(decide(policy, facts(feature="autocomplete", edge_ready=False))) == [EDGE]


def test_failing_deployment_is_asked_last_and_not_removed(policy: CompiledPolicy):
    """Health orders; it does not refuse."""
    assert ids(decide(policy, facts(unhealthy=frozenset({GPU})))) == [US, EDGE, GPU]
    assert decide(policy, facts(unhealthy=frozenset({GPU}))).first_choices == 1
    assert ids(decide(policy, facts(unhealthy=frozenset({GPU, US}), edge_ready=False))) == [GPU, US, EDGE]


def test_edge_that_stands_in_for_failing_backends_makes_no_draft_of_itself(policy: CompiledPolicy):
    """When the edge gives the final, a draft by the edge would only repeat it."""
    decision = decide(policy, facts(unhealthy=frozenset({GPU, US}), draft=DraftWish.FRAMES))
    assert (ids(decision)[0], decision.mode, decision.no_draft) == (EDGE, Mode.CLOUD_ONLY, "mode")


def test_cost_weight_prefers_the_cheaper(tmp_path: Path):
    """`optimize` weighs price against the policy's own order; the objective on cost comes before both."""
    models = FILES["models.yaml"].replace("price: {input: 0.25, output: 0.75}", "price: {input: 9, output: 9}")
    by_order = loaded(tmp_path / "a", models=models)
    assert ids(decide(by_order, facts(prompt_tokens=10, max_tokens=10)))[:2] == [GPU, US]
    assert ids(decide(by_order, facts(feature="batch"))) == [US, GPU]
    assert ids(decide(by_order, facts(prompt_tokens=2_500, max_tokens=10)))[:2] == [US, GPU]


def test_policy_without_an_edge_drafts_nothing(tmp_path: Path):
    """draft_refine works without an edge: as a proxy that says why there is no draft."""
    policy = loaded(
        tmp_path,
        backends="backends: {a: {type: openai, base_url: 'http://a.example'}}",
        models="models: {m: [{backend: a, model: x, price: free}]}",
        constraints="constraints: []",
        routes="routes: [{name: r, mode: draft_refine}]",
    )
    decision = decide(policy, facts(model="m", draft=DraftWish.FRAMES))
    assert (ids(decision), decision.no_draft) == (["a/x"], "edge_not_ready")


def test_model_without_deployments_is_503(policy: CompiledPolicy):
    """What loading refuses, deciding survives: nothing to choose from is a refusal, not an error."""
    hollow = dataclasses.replace(policy, models={"hollow": ()}, edge=None)
    assert isinstance(decide(hollow, facts(model="hollow", feature="autocomplete")).refusal, NoDeployment)
