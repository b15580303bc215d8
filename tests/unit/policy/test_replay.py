"""What is kept of a request's facts for `policy diff`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gateway.policy.facts import Facts
from gateway.policy.replay import Recorder, read
from gateway.routing.decide import decide
from tests.policy_folder import FILES, loaded

PROXY = "trusted_proxies: [{name: mesh, networks: [10.0.0.0/8], headers: [x-user-region, x-user]}]\n"
ASKS = FILES["constraints.yaml"] + (
    "  - name: minors\n"
    "    when: has(request.metadata.audience) || request.headers['x-user-region'] == 'eu'\n"
    "    require: {region: [eu-*, local]}\n"
)


def test_record_of_a_labelled_request_has_labels_and_only_what_conditions_ask_for(tmp_path: Path):
    """Metadata and headers that no condition asks for are not written; the decision is the same without them."""
    policy = loaded(tmp_path, constraints=PROXY + ASKS)
    facts = Facts(
        tenant_name="acme",
        tenant_region="eu",
        model="large",
        feature="chat",
        labels=frozenset({"health", "personal.email"}),
        metadata={"audience": "minors", "user": "anna.schmidt@web.de", "x-user-region": "Anna"},
        headers={"x-user-region": "eu", "x-user": "anna"},
        edge_ready=True,
    )
    line = Recorder(policy).line(facts, at=7)
    assert b"anna" not in line.lower()
    (recorded,) = read([line])
    assert recorded.facts.labels == facts.labels
    assert recorded.facts.metadata == {"audience": "minors"}
    assert recorded.facts.headers == {"x-user-region": "eu"}
    one, other = decide(policy, facts), decide(policy, recorded.facts)
    assert (str(one.refusal), one.removed) == (str(other.refusal), other.removed)
    assert msgspec.structs.replace(one, refusal=None) == msgspec.structs.replace(other, refusal=None)
