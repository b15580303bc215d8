"""Several edges, and edges elsewhere: which drafts, what is known of each, and that constraints hold for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import PolicyError
from gateway.inference.prediction import EdgeNow
from gateway.inference.request import DraftWish
from gateway.policy.compile import CompiledPolicy, Mode
from gateway.policy.facts import Facts
from gateway.policy.load import load_policy
from gateway.routing.decide import decide
from gateway.routing.prove import prove
from tests.policy_folder import ENVIRON

POLICY = """\
backends:
  edge: {type: edge, model: smollm2-135m-instruct, region: local, compliance: [no-egress]}
  writer: {type: edge, model: /srv/models/qwen-1.5b.gguf, region: local, compliance: [no-egress]}
  phone: {type: openai, role: draft, base_url: "http://phone.example/v1", region: eu-west}
  cloud: {type: openai, base_url: "http://cloud.example/v1", region: us-east}
models:
  large: [{backend: cloud, model: l, price: {input: 1, output: 2}}]
  small: [{backend: edge}]
  middle: [{backend: writer}]
  handy: [{backend: phone, model: gemma, price: {input: 1, output: 3}, context_tokens: 4_096}]
constraints:
  - {name: health, when: '"health" in request.labels', require: {compliance: [no-egress]}}
  - {name: minors, when: '"minors" in request.labels', require: {region: [us-*, local]}}
routes:
  - {name: complete, when: request.feature == "autocomplete", mode: edge_only, models: [middle], fallback: [small]}
  - {name: write, when: request.feature == "write", mode: draft_refine, models: [large], draft: {model: middle}}
  - {name: handy, when: request.feature == "handy", mode: draft_refine, draft: {model: handy, max_tokens: 100}}
  - {name: chat, mode: draft_refine, models: [large], fallback: [small], when_budget_is_spent: edge_only}
tenants:
  guest: {keyless: true}
"""
EDGE, WRITER, PHONE, CLOUD = "edge/smollm2-135m-instruct", "writer/qwen-1.5b", "phone/gemma", "cloud/l"


def load(folder: Path, text: str = POLICY) -> CompiledPolicy:
    folder.mkdir(exist_ok=True)
    (folder / "policy.yaml").write_text(text)
    return load_policy(folder, ENVIRON)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> CompiledPolicy:
    """All edges, compiled."""
    return load(tmp_path_factory.mktemp("edges"))


def facts(**given) -> Facts:
    usual = {"tenant_name": "guest", "model": "large", "edge_ready": True, "draft": DraftWish.FRAMES}
    return Facts(**{**usual, **given})


def drafter(policy: CompiledPolicy, **given) -> str:
    """Who drafts, or why nobody does."""
    decision = decide(policy, facts(**given))
    return decision.draft.id if decision.draft else decision.no_draft


def test_models_of_all_edges_are_loaded_and_named(policy: CompiledPolicy):
    """Each model once, in the policy's order; a model's name reaches the edge that has it."""
    assert policy.edge_models == ("smollm2-135m-instruct", "/srv/models/qwen-1.5b.gguf")
    decision = decide(policy, facts(feature="autocomplete"))
    assert [deployment.id for deployment in decision.deployments] == [WRITER, EDGE]
    assert decide(policy, facts(model="middle", feature="x")).mode is Mode.DRAFT_REFINE


def test_a_route_names_who_drafts(policy: CompiledPolicy):
    """The first edge, unless the route says otherwise: another edge, or one elsewhere."""
    assert drafter(policy) == EDGE
    assert drafter(policy, feature="write") == WRITER
    assert drafter(policy, feature="handy") == PHONE


def test_each_edge_is_asked_how_it_is(policy: CompiledPolicy):
    """One that is not ready, has a long queue, or a short context, keeps no other from drafting."""
    down = {WRITER: EdgeNow(reason="it loads")}
    assert drafter(policy, feature="write", edges=down) == "edge_not_ready"
    assert drafter(policy, edges=down) == EDGE
    assert drafter(policy, feature="write", edge_ready=False, edges={WRITER: EdgeNow(ready=True)}) == WRITER
    assert drafter(policy, feature="write", edges={WRITER: EdgeNow(ready=True, wait_s=99)}) == "queue"
    short = {WRITER: EdgeNow(ready=True, context_tokens=50)}
    assert drafter(policy, feature="write", prompt_tokens=40, edges=short) == "too_long"
    answering = decide(policy, facts(feature="autocomplete", edges=down))
    assert [deployment.id for deployment in answering.deployments] == [EDGE, WRITER]


def test_an_edge_elsewhere_needs_no_edge_here(policy: CompiledPolicy):
    """It drafts while the edge is down, until its own attempts say that it fails; its context counts."""
    assert drafter(policy, feature="handy", edge_ready=False) == PHONE
    assert drafter(policy, feature="handy", unhealthy=frozenset({PHONE})) == "edge_not_ready"
    assert drafter(policy, feature="handy", prompt_tokens=4_000) == "too_long"
    assert drafter(policy, feature="handy", tools=True) == "tools"


def test_constraints_hold_for_an_edge_elsewhere(policy: CompiledPolicy):
    """Nothing is assumed of it: without the term, or outside the region, it drafts nothing."""
    assert drafter(policy, feature="handy", labels=frozenset({"minors"})) == "constraint"
    assert decide(policy, facts(feature="handy", labels=frozenset({"health"}))).refusal is not None


def test_what_drafts_does_not_give_the_final_beside(policy: CompiledPolicy):
    """Where the client asks for the drafter's own model, that answers, without a draft."""
    decision = decide(policy, facts(feature="handy", model="handy"))
    assert [deployment.id for deployment in decision.deployments] == [PHONE]
    assert (decision.draft, decision.no_draft) == (None, "mode")


def test_without_an_edge_here_the_one_elsewhere_drafts(tmp_path: Path):
    """It needs no word in the route."""
    text = "\n".join(
        line
        for line in POLICY.replace("fallback: [small], when_budget_is_spent: edge_only", "").splitlines()
        if not any(
            word in line
            for word in ("type: edge", "backend: edge", "backend: writer", "complete", "write,", "name: health")
        )
    )
    assert drafter(load(tmp_path, text), edge_ready=False) == PHONE


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("draft: {model: handy, max_tokens: 100}", "draft: {model: large}", "none of it drafts"),
        ("  handy: [", "  handy: [{backend: cloud, model: x, price: free}]\n  other: [", "none of it drafts"),
        ("{backend: phone, model: gemma,", "{backend: cloud, model: gemma,", "drafts nothing"),
        ("{type: edge, model: smol", "{type: edge, role: draft, model: smol", "the edge has no `role`"),
        ("mode: draft_refine, draft: {model: handy", "mode: cascade, draft: {model: handy", "a cascade needs the edge"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, old: str, new: str, says: str):
    """A drafter that does not draft, a draft by what cannot, a role that means nothing."""
    with pytest.raises(PolicyError) as refused:
        load(tmp_path, POLICY.replace(old, new))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("requires", "verdict"), [("region: [eu-*, us-*, local]", "holds"), ("region: [us-*, local]", "broken")]
)
def test_the_proof_knows_the_edge_elsewhere(tmp_path: Path, requires: str, verdict: str):
    """A draft is a way to reach it: an invariant that it breaks is broken, with the role that shows how."""
    invariant = f'invariants:\n  - {{name: there, when: request.feature == "handy", require: {{{requires}}}}}\n'
    policy = load(tmp_path, POLICY + invariant)
    (outcome,) = prove(policy).outcomes
    assert outcome.verdict == verdict
    if outcome.leak is not None:
        assert (outcome.leak.deployment, outcome.leak.route) == (PHONE, "handy")


def test_the_proof_finds_a_draft_that_no_answer_could_give(tmp_path: Path):
    """Where only the draft goes there, that is the leak that is shown."""
    invariant = 'invariants:\n  - {name: there, when: request.model == "large", require: {region: [us-*, local]}}\n'
    (outcome,) = prove(load(tmp_path, POLICY + invariant)).outcomes
    assert outcome.leak is not None
    assert (outcome.leak.deployment, outcome.leak.role) == (PHONE, "draft")
