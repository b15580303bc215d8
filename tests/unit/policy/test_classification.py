"""What a policy says about the classifier."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.classification.classifier import DEFAULT_LIMIT_S
from gateway.classification.kinds import ALL_KINDS, Kind
from gateway.errors import PolicyError
from gateway.policy.stored_tenants import compile_stored
from gateway.tenants.stored import StoredTenant
from tests.policy_folder import FILES, loaded


def tenant(tmp_path: Path, lines: str = ""):
    """The tenant `guest` with these lines more."""
    text = FILES["tenants.yaml"].replace("keyless: true", f"keyless: true\n{lines}")
    return loaded(tmp_path / "policies", tenants=text).tenants["guest"]


def test_everything_is_looked_for_by_default(tmp_path: Path):
    """Policies ask for `personal` in labels, so it is looked for unless a tenant says otherwise."""
    classifier = tenant(tmp_path).classifier
    assert classifier is not None
    assert classifier.kinds == ALL_KINDS
    assert classifier.limit_s == DEFAULT_LIMIT_S


def test_a_tenant_says_what_is_looked_for(tmp_path: Path):
    """Kinds, time limit and words are the tenant's own."""
    found = tenant(
        tmp_path,
        "    classification: {kinds: [card, national-id], limit: 5ms}\n"
        "    dictionary:\n      - {label: projects, words: [Bluebird, 'Blue Bird']}\n"
        "      - {label: projects, words: [Zoë]}",
    )
    classifier = found.classifier
    assert classifier is not None
    assert classifier.kinds == {Kind.CARD, Kind.NATIONAL_ID}
    assert classifier.limit_s == 0.005
    assert "projects" in classifier.classify(["zoë and the bluebird, bob@corp.com"]).labels


def test_no_kinds_is_off(tmp_path: Path):
    """An empty list switches the classifier off."""
    classifier = tenant(tmp_path, "    classification: {kinds: []}").classifier
    assert classifier is not None
    assert classifier.is_off


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("    classification: {kinds: [crad]}", "did you mean `card`?"),
        ("    classification: {kind: [card]}", "did you mean `kinds`?"),
        ("    classification: {limit: 20}", "a duration needs a unit"),
        ("    classification: {limit: 2s}", "at most 1s"),
        ("    classification: off", "mapping"),
        ("    dictionary: [{label: Projects, words: [Bluebird]}]", "is no label"),
        ("    dictionary: [{label: projects, words: []}]", "words"),
        ("    dictionary: [{label: projects, words: [x]}]", "is no word to look for"),
        ("    dictionary: [{label: projects, words: [4711]}]", "put it in quotes"),
        ("    dictionary: [{words: [Bluebird]}]", "`label` is missing"),
        (f"    dictionary: [{{label: a, words: [{', '.join(f'w{n}' for n in range(1001))}]}}]", "1,000 words at most"),
    ],
)
def test_mistakes(tmp_path: Path, lines: str, says: str):
    """A mistake is found when the policy is loaded, and says what to write."""
    with pytest.raises(PolicyError) as failure:
        tenant(tmp_path, lines)
    assert says in str(failure.value)
    assert "tenants.yaml" in str(failure.value)


def test_what_finds_is_compiled_once_for_all(tmp_path: Path):
    """Tenants of the store and newer policies compile no finders anew: that is time and memory for each."""
    stored = compile_stored("globex", StoredTenant(spec={"region": "eu"}))
    compiled = {id(found.classifier._recognizer) for found in (tenant(tmp_path), tenant(tmp_path), stored.tenant)}
    assert len(compiled) == 1
