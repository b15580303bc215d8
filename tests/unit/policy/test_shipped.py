"""The policies that ship: each loads without a warning, keeps its invariants and passes its cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.policy.cases import read_cases
from gateway.routing.prove import prove, told
from gateway.routing.proven import load_proven
from gateway.routing.trial import run

ROOT = Path(__file__).parents[3]
FOLDERS = [ROOT / "policies", *sorted((ROOT / "policies/examples").iterdir())]
WANTED = {
    *("eu-residency", "health-at-the-edge", "cost-first-batch"),
    *("autocomplete", "cascade", "multi-region-failover", "per-feature-budgets"),
}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_shipped_policy_is_right_proved_and_tested(folder: Path):
    """With an empty environment: no mistake, no warning, every invariant proved, every case passed."""
    policy = load_proven(folder, {})
    assert policy.warnings == ()
    assert policy.invariants
    assert [told(outcome) for outcome in prove(policy).outcomes if outcome.verdict != "holds"] == []
    cases = read_cases(folder, policy)
    assert len(cases) >= 4
    assert [(verdict.case, verdict.differences) for verdict in run(policy, cases) if verdict.differences] == []


def test_examples_are_all_there():
    """Each situation that the README names has an example."""
    assert {folder.name for folder in FOLDERS[1:]} == WANTED
