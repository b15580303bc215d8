"""Tenants of the store under a policy's invariants."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.policy.load import load_policy
from gateway.routing.with_tenants import WithTenants
from gateway.tenants.stored import StoredTenant

POLICY = """\
backends:
  edge: {type: edge, model: smollm2-135m-instruct, region: local, compliance: [no-egress]}
  us: {type: openai, base_url: "http://us.example", region: us-east}
models:
  large: [{backend: us, model: l, price: {input: 3, output: 4}}]
  small: [{backend: edge}]
routes:
  - {name: clinic, when: 'NAME == "clinic"', mode: cloud_only}
  - {name: health, when: '"health" in request.labels', mode: edge_only}
  - {name: rest, mode: cloud_only}
invariants:
  - {name: health, when: '"health" in request.labels', require: {compliance: [no-egress]}}
tenants:
  acme: {keyless: true}
"""


@pytest.mark.parametrize("name", ["tenant.name", "tenant . name"])
def test_a_tenant_that_a_condition_names_is_proved_though_another_is_like_it(tmp_path: Path, name: str) -> None:
    """What was proved for one tenant counts for another only where no condition can tell them apart."""
    (tmp_path / "policy.yaml").write_text(POLICY.replace("NAME", name), encoding="utf-8")
    policy, completed = load_policy(tmp_path, {}), WithTenants()
    completed.give({"alpha": StoredTenant()})
    assert "alpha" in completed.complete(policy).tenants
    completed.give({"alpha": StoredTenant(), "clinic": StoredTenant()})
    assert "clinic" not in completed.complete(policy).tenants
    assert list(completed.refused) == ["clinic"]
