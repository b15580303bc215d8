"""`explain` and the data plane say the same, whatever the request."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import msgspec

from gateway.policy.load import load_policy
from gateway.policy.replay import Recorder, read
from gateway.routing.decide import decide
from gateway.routing.explain import as_json, explain
from tests.policy_folder import loaded
from tests.property.random_requests import random_facts
from tests.unit.routing.test_prove_ways import TIGHT, compiled

EXAMPLES = Path(__file__).parents[2] / "policies/examples"
REQUESTS = 10_000


def test_explain_and_the_data_plane_agree_in_every_field(tmp_path):
    """Over 10,000 random requests, all examples and modes: the same decision, the same JSON, again from a record."""
    (tmp_path / "every-mode").mkdir()
    policies = [loaded(tmp_path / "usual"), compiled(tmp_path / "every-mode", TIGHT)]
    policies += [load_policy(folder, {}) for folder in sorted(EXAMPLES.iterdir())]
    recorders = [Recorder(policy) for policy in policies]
    chance = random.Random(20231116)
    refused = 0
    for number in range(REQUESTS):
        place = number % len(policies)
        policy = policies[place]
        facts = random_facts(chance, policy)
        decided = decide(policy, facts)
        told = explain(policy, facts)
        (recorded,) = read([recorders[place].line(facts, at=number)])
        replayed = decide(policy, recorded.facts)
        for other in (told.decision, replayed):
            for field in decided.__struct_fields__:
                if field != "refusal":
                    assert getattr(decided, field) == getattr(other, field), field
            assert type(decided.refusal) is type(other.refusal)
            assert str(decided.refusal) == str(other.refusal)
        _agree(as_json(told), decided)
        refused += decided.refusal is not None
    assert 0.02 * REQUESTS < refused < 0.5 * REQUESTS


def test_what_deciding_remembers_changes_no_decision(tmp_path):
    """A policy that has decided thousands of requests decides the next as one that was just loaded would."""
    chance = random.Random(8)
    for policy in (loaded(tmp_path), *(load_policy(folder, {}) for folder in sorted(EXAMPLES.iterdir()))):
        asked = [random_facts(chance, policy) for _ in range(400)]
        for facts in (*asked, *asked):
            used, fresh = decide(policy, facts), decide(dataclasses.replace(policy), facts)
            assert (str(used.refusal), type(used.refusal)) == (str(fresh.refusal), type(fresh.refusal))
            assert msgspec.structs.replace(used, refusal=None) == msgspec.structs.replace(fresh, refusal=None)


def _agree(shown, decided) -> None:
    """What is printed is what was decided."""
    assert shown["route"] == decided.route
    assert shown["mode"] == decided.mode.value
    assert shown["policy_version"] == decided.policy_version
    assert shown["deployments"] == [deployment.id for deployment in decided.deployments]
    assert shown["first_choices"] == decided.first_choices
    assert shown["draft"] == (decided.draft.id if decided.draft else None)
    assert shown["draft_max_tokens"] == decided.draft_max_tokens
    assert (shown["no_draft"], shown["draft_wish"]) == (decided.no_draft, decided.draft_wish.value)
    assert shown["spent"] == [deployment.id for deployment in decided.spent]
    assert shown["spent_mode"] == decided.spent_mode.value
    assert shown["cache"] == (None if decided.cache is None else msgspec.to_builtins(decided.cache))
    for name in ("hedge", "cascade", "refine", "retrieval"):
        rule = getattr(decided, name)
        assert shown[name] == (None if rule is None else msgspec.to_builtins(rule)), name
    assert shown["no_retrieval"] == decided.no_retrieval
    assert tuple(shown["reasons"]) == decided.reasons
    assert (shown["refusal"] is None) == (decided.refusal is None)
    used = {story["id"] for story in shown["why"]["deployments"] if story["place"]}
    assert used == {deployment.id for deployment in decided.deployments}
    removed = {story["id"] for story in shown["why"]["deployments"] if "removed by" in story["why"]}
    assert removed == {removal.deployment for removal in decided.removed}
