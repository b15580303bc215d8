"""Leaks on the less travelled ways: cascade, hedge, drafts by another server, downgrades, retrieval and search."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.policy.facts import Facts
from gateway.policy.load import load_policy
from gateway.routing.decide import decide, searchable
from gateway.routing.explain import as_json, explain
from gateway.routing.prove import prove, told

TIGHT = """\
backends:
  edge: {type: edge, model: smollm2-135m-instruct, region: local, compliance: [no-egress]}
  phone: {type: openai, role: draft, base_url: "http://phone.example/v1", region: eu-west, compliance: [gdpr]}
  eu: {type: openai, base_url: "http://eu.example", region: eu-west, compliance: [gdpr]}
  eu-two: {type: openai, base_url: "http://two.example", region: eu-north, compliance: [gdpr]}
  us: {type: openai, base_url: "http://us.example", region: us-east}
models:
  large:
    - {backend: eu, model: l, price: {input: 2, output: 4}}
    - {backend: eu-two, model: l, price: {input: 3, output: 6}}
  world:
    - {backend: eu, model: l, price: {input: 2, output: 4}}
    - {backend: us, model: w, price: {input: 0.5, output: 1}}
  small:
    - {backend: edge}
  pocket:
    - {backend: phone, model: p, price: free}
stores:
  handbook: {type: files}
  tickets: {type: http, url: "http://search.us.example/v1", id: vs, region: us-east, tenants: [boston]}
constraints:
  - name: personal
    when: '"personal" in request.labels'
    require: {region: [eu-*, local], compliance: [gdpr | no-egress]}
  - name: health
    when: '"health" in request.labels'
    require: {compliance: [no-egress]}
routes:
  - {name: sure, when: request.feature == "sure", mode: cascade, models: [large], cascade: {threshold: 0.8}}
  - {name: quick, when: request.feature == "quick", mode: hedge, models: [large]}
  - {name: pocket, when: request.feature == "pocket", mode: draft_refine, models: [large], draft: {model: pocket}}
  - name: cheap
    when: request.feature == "cheap"
    mode: cloud_only
    models: [world]
    when_budget_is_spent: cheapest
  - {name: support, when: request.feature == "support", mode: cloud_only, models: [large], retrieval: {store: tickets}}
  - {name: rest, mode: cloud_only, models: [large], fallback: [small], retrieval: {store: handbook}, cache: {ttl: 1h}}
tenants:
  berlin: {region: eu}
  boston: {region: us}
invariants:
  - {name: personal, when: '"personal" in request.labels', require: {region: [eu-*, local]}}
  - {name: health, when: '"health" in request.labels', require: {compliance: [no-egress]}}
  - {name: berlin, when: tenant.name == "berlin" && request.feature != "cheap", require: {region: [eu-*, local]}}
"""

LEAKS = {
    "cascade whose larger model is outside": ("threshold: 0.8}}", "threshold: 0.8}, fallback: [world]}", "berlin"),
    "edge that lost its term, in a cascade without the constraint": (
        "[no-egress]}\nroutes",
        "[no-egress | soc2]}\nroutes",
        None,
    ),
    "hedge with a second one outside": ("mode: hedge, models: [large]", "mode: hedge, models: [world]", "berlin"),
    "draft by a server that moved": (
        'phone.example/v1", region: eu-west',
        'phone.example/v1", region: us-west',
        "berlin",
    ),
    "draft by a server, of health data": (
        "when: '\"health\" in request.labels'\n    req",
        'when: \'"health" in request.labels && request.feature != "pocket"\'\n    req',
        "health",
    ),
    "downgrade that is cheaper outside": (
        "when: '\"personal\" in request.labels'\n    req",
        "when: '\"personal\" in request.labels && budget.left > 0.0'\n    req",
        "personal",
    ),
    "store of the route is outside": ("retrieval: {store: handbook}", "retrieval: {store: tickets}", None),
    "store that everybody may search": (", tenants: [boston]}", "}", "berlin"),
    "store for the wrong tenant": ("tenants: [boston]}", "tenants: [berlin]}", "berlin"),
    "store that moved": ("handbook: {type: files}", "handbook: {type: files, region: us-west}", "berlin"),
    "retrieval that a constraint lets out": (
        "when: '\"health\" in request.labels'\n    req",
        'when: \'"health" in request.labels && request.feature != "support"\'\n    req',
        "health",
    ),
    "search that has no feature": (
        "when: '\"personal\" in request.labels'\n    req",
        'when: \'"personal" in request.labels && request.feature != ""\'\n    req',
        "personal",
    ),
    "search that names no model": (
        "when: '\"health\" in request.labels'\n    req",
        'when: \'"health" in request.labels && request.model in ["large", "world", "small", "pocket"]\'\n    req',
        "health",
    ),
}
"""What is replaced, by what, and the invariant that is broken then; None: something still holds."""


def compiled(directory: Path, text: str):
    """The policy in one file."""
    (directory / "policy.yaml").write_text(text)
    return load_policy(directory, {})


def test_policy_with_every_mode_and_store_is_proved(tmp_path: Path):
    """Cascade, hedge, another drafter, a downgrade and two stores: all that may be reached keeps the invariants."""
    proof = prove(compiled(tmp_path, TIGHT))
    assert [outcome.verdict for outcome in proof.outcomes] == ["holds"] * 3, [told(each) for each in proof.outcomes]


@pytest.mark.parametrize("seed", LEAKS.values(), ids=LEAKS.keys())
def test_seeded_leak_on_a_less_travelled_way_is_found(tmp_path: Path, seed: tuple[str, str, str | None]):
    """Each leak is found with a request that does reach the place, and nothing else is called one."""
    old, new, invariant = seed
    assert TIGHT.count(old) == 1
    policy = compiled(tmp_path, TIGHT.replace(old, new))
    found = {each.invariant: each.leak for each in prove(policy).outcomes if each.verdict == "broken"}
    if invariant is None:
        assert found == {}
        return
    assert invariant in found
    leak = found[invariant]
    store = policy.stores.get(leak.deployment.removeprefix("store "))
    if store is not None:
        assert searchable(policy, leak.facts, store) == ""
    else:
        decision = decide(policy, leak.facts)
        reached = [*decision.deployments, *decision.spent, *([decision.draft] if decision.draft else [])]
        assert leak.deployment in {deployment.id for deployment in reached}


def test_explain_tells_of_stores_hedges_and_health(tmp_path: Path):
    """For each store why or why not; which deployment is asked when the first is late; and what fails now."""
    policy = compiled(tmp_path, TIGHT)
    asked = Facts(tenant_name="boston", tenant_region="us", model="large", feature="support", edge_ready=True)
    told_of = explain(policy, asked)
    assert [(store.name, store.used) for store in told_of.stores] == [("handbook", False), ("tickets", True)]
    personal = explain(policy, Facts(**{**_plain(asked), "labels": frozenset({"personal"})}))
    assert "removed by constraint `personal`" in personal.stores[1].why
    assert as_json(personal)["no_retrieval"] == personal.decision.no_retrieval != ""
    quick = explain(policy, Facts(**{**_plain(asked), "feature": "quick", "unhealthy": frozenset({"eu/l"})}))
    assert [story.id for story in quick.deployments[:2]] == ["eu-two/l", "eu/l"]
    assert "asked as well when the first is late" in quick.deployments[1].why
    assert "fails now" in quick.deployments[1].why


def _plain(facts: Facts) -> dict[str, object]:
    return {name: getattr(facts, name) for name in facts.__struct_fields__}
