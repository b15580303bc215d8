"""Leaks that a platform team could ship on a bad day, each found by `prove` with a request that does get out."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.routing.decide import decide, searchable
from gateway.routing.prove import prove, told
from tests.unit.routing.test_prove_ways import compiled

TIGHT = """\
backends:
  edge: {type: edge, model: smollm2-135m-instruct, region: local, compliance: [no-egress]}
  phone: {type: openai, role: draft, base_url: "http://phone.example/v1", region: eu-west, compliance: [gdpr]}
  eu: {type: openai, base_url: "http://eu.example", region: eu-west, compliance: [gdpr, zero-retention]}
  north: {type: openai, base_url: "http://north.example", region: eu-north, compliance: [gdpr]}
  us: {type: openai, base_url: "http://us.example", region: us-east, compliance: [soc2]}
models:
  large:
    - {backend: eu, model: l, price: {input: 2, output: 4}}
    - {backend: north, model: l, price: {input: 3, output: 6}}
  eyes:
    - {backend: north, model: v, price: {input: 3, output: 6}}
  world:
    - {backend: us, model: w, price: {input: 0.5, output: 1}}
  pocket: [{backend: phone, model: p, price: free}]
  small: [{backend: edge}]
stores:
  handbook: {type: files}
  tickets: {type: http, url: "http://search.eu.example/v1", id: vs, region: eu-west, tenants: [boston]}
trusted_proxies:
  - {name: edge, networks: [10.0.0.0/8], headers: [x-user-region, x-user-age]}
constraints:
  - {name: berlin, when: tenant.region == "eu", require: {region: [eu-*, local], compliance: [gdpr | no-egress]}}
  - {name: secret, when: '"secret" in request.labels', require: {compliance: [zero-retention | no-egress]}}
  - name: unread
    when: '"unclassified" in request.labels || request.images || request.audio'
    require: {region: [eu-*, local]}
  - name: travellers
    when: '"x-user-region" in request.headers && request.headers["x-user-region"] == "eu"'
    require: {region: [eu-*, local]}
  - name: finance
    when: request.labels.exists(l, l.startsWith("finance."))
    require: {compliance: [gdpr | no-egress]}
routes:
  - {name: typing, when: request.feature == "typing", mode: edge_only}
  - {name: german, when: request.language == "de", mode: cloud_only, models: [large]}
  - {name: tools, when: request.tools && request.feature == "agent", mode: hedge, models: [large], fallback: [eyes]}
  - name: night
    when: request.hour >= 22 && request.feature == "batch"
    mode: cloud_only
    models: [world]
    fallback: [large]
    when_budget_is_spent: edge_only
  - {name: sure, when: request.feature == "sure", mode: cascade, models: [large], cascade: {threshold: 0.8}}
  - name: rest
    mode: draft_refine
    models: [large]
    fallback: [small]
    draft: {model: pocket}
    retrieval: {store: handbook}
    when_budget_is_spent: cheapest
tenants:
  berlin: {region: eu}
  boston: {region: us}
  clinic: {region: eu, labels: [secret]}
invariants:
  - {name: berlin, when: tenant.region == "eu", require: {region: [eu-*, local]}}
  - {name: gdpr, when: tenant.region == "eu", require: {compliance: [gdpr | no-egress]}}
  - {name: secret, when: '"secret" in request.labels', require: {compliance: [zero-retention | no-egress]}}
  - {name: unread, when: '"unclassified" in request.labels', require: {region: [eu-*, local]}}
  - {name: images, when: request.images, require: {region: [eu-*, local]}}
  - {name: typing, when: request.feature == "typing", require: {region: [local]}}
  - {name: german, when: request.language == "de" && request.feature != "typing", require: {region: [eu-*, local]}}
  - name: travelling
    when: '"x-user-region" in request.headers && request.headers["x-user-region"] == "eu"'
    require: {region: [eu-*, local]}
  - {name: finance, when: '"finance.eu" in request.labels', require: {compliance: [gdpr | no-egress]}}
  - {name: day, when: request.hour < 22, require: {region: [eu-*, local]}}
"""

NIGHT = 'when: request.hour >= 22 && request.feature == "batch"'
LEAKS = {
    "region spelt wider": (
        "require: {region: [eu-*, local], compliance: [gdpr | no-egress]}}\n  - {name: secret",
        "require: {region: [eu-*, us-*, local]}}\n  - {name: secret",
        "gdpr",
    ),
    "region that anything begins with": (
        "require: {region: [eu-*, local], compliance: [gdpr | no-egress]}}\n  - {name: secret",
        "require: {region: ['*']}}\n  - {name: secret",
        "berlin",
    ),
    "term weakened by another one": (
        "[zero-retention | no-egress]}}\n  - name: unread",
        "[zero-retention | gdpr | no-egress]}}\n  - name: unread",
        "secret",
    ),
    "constraint for the labels that clients name, not for those of tenants": (
        """- {name: secret, when: '"secret" in request.labels', require: {compliance: [zero-retention | no-egress]}}
  - name: unread""",
        """- name: secret
    when: '"secret" in request.labels && !("secret" in tenant.labels)'
    require: {compliance: [zero-retention | no-egress]}
  - name: unread""",
        "secret",
    ),
    "constraint for all tenants but one": (
        'name: berlin, when: tenant.region == "eu", require: {region: [eu-*, local], c',
        'name: berlin, when: tenant.region == "eu" && tenant.name != "berlin", require: {region: [eu-*, local], c',
        "berlin",
    ),
    "constraint by the beginning of a name": (
        'name: berlin, when: tenant.region == "eu", require: {region: [eu-*, local], c',
        'name: berlin, when: tenant.name.startsWith("cli"), require: {region: [eu-*, local], c',
        "berlin",
    ),
    "unreadable text forgotten": (
        "'\"unclassified\" in request.labels || request.images || request.audio'",
        "request.images || request.audio",
        "unread",
    ),
    "images forgotten": (
        "'\"unclassified\" in request.labels || request.images || request.audio'",
        "'\"unclassified\" in request.labels || request.audio'",
        "images",
    ),
    "header of another case": (
        'request.headers["x-user-region"] == "eu"\'\n    require: {region: [eu-*, local]}\n  - name: finance',
        'request.headers["x-user-region"] == "EU"\'\n    require: {region: [eu-*, local]}\n  - name: finance',
        "travelling",
    ),
    "header that another one hides": (
        "  - name: travellers\n    when: '",
        '  - name: travellers\n    when: \'!("x-user-age" in request.headers) && ',
        "travelling",
    ),
    "exact label for a family": (
        'request.labels.exists(l, l.startsWith("finance."))',
        "'\"finance\" in request.labels'",
        "finance",
    ),
    "all for exists": (
        'request.labels.exists(l, l.startsWith("finance."))',
        'request.labels.all(l, l.startsWith("finance."))',
        "finance",
    ),
    "night that begins at nine": (NIGHT, NIGHT.replace("22", "21"), "day"),
    "night by or": (NIGHT, NIGHT.replace("&&", "||"), "day"),
    "fallback abroad by day": ("fallback: [small]\n", "fallback: [small, world]\n", "day"),
    "typing in the cloud while the edge is not ready": (
        'when: request.feature == "typing", mode',
        'when: request.feature == "typing" && backend.edge_ready, mode',
        "typing",
    ),
    "typing that a route before takes": (
        '  - {name: typing, when: request.feature == "typing", mode: edge_only}\n  - {name: german',
        "  - {name: german",
        "typing",
    ),
    "german in the world": (
        'when: request.language == "de", mode: cloud_only, models: [large]',
        'when: request.language == "de", mode: cloud_only, models: [large], fallback: [world]',
        "german",
    ),
    "tool calls that fall back abroad": (
        "models: [large], fallback: [eyes]",
        "models: [large], fallback: [eyes, world]",
        "day",
    ),
    "cascade that falls back abroad": (
        "cascade: {threshold: 0.8}",
        "cascade: {threshold: 0.8}, fallback: [world]",
        "day",
    ),
    "drafts by a phone abroad": ('phone.example/v1", region: eu-west', 'phone.example/v1", region: us-west', "day"),
    "edge that is a server now": (
        "region: local, compliance: [no-egress]}\n  phone",
        "region: us-east, compliance: [no-egress]}\n  phone",
        "typing",
    ),
    "store that moved abroad": ("handbook: {type: files}", "handbook: {type: files, region: us-east}", "day"),
    "store for one tenant more": ("tenants: [boston]", "tenants: [boston, berlin]", None),
    "model that a client names": ("    mode: draft_refine\n    models: [large]\n", "    mode: draft_refine\n", "day"),
}
"""What is replaced, by what, and the invariant that is broken then; None: what is still true holds."""


def test_the_policy_itself_is_proved(tmp_path: Path):
    """Labels, headers, languages, hours, stores and drafters: all that may be reached keeps the invariants."""
    proof = prove(compiled(tmp_path, TIGHT))
    assert {outcome.verdict for outcome in proof.outcomes} == {"holds"}, [told(each) for each in proof.outcomes]


@pytest.mark.parametrize("seed", LEAKS.values(), ids=LEAKS.keys())
def test_leak_of_a_bad_day_is_found(tmp_path: Path, seed: tuple[str, str, str | None]):
    """The invariant is broken by a request that the decision, or the search, does let out."""
    old, new, invariant = seed
    assert TIGHT.count(old) == 1, TIGHT.count(old)
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
