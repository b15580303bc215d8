"""Some hundred of the requests that `python -m tests.attack.explain` compares by the ten thousand."""

import random
from collections.abc import Callable

import pytest

from gateway.cache.prompts import PromptCache
from gateway.modes.passing import Passing
from tests.attack.explain import Sent, attack

pytestmark = [pytest.mark.store, pytest.mark.slow]

_HAPPENS = {
    "budget refused",
    "cache hit",
    "cache miss",
    "downgraded",
    "drafted",
    "failed over",
    "mode cascade",
    "mode hedge",
    "refused model_not_found",
    "refused policy_denied",
    "retrieval denied",
    "route german",
}


async def test_explain_and_a_running_gateway_agree_in_every_field():
    """For random requests what is explained is what was decided, done, told and logged."""
    outcome = await attack(700, seed=3)
    assert outcome.differing == []
    assert _HAPPENS - set(outcome.kinds) == set()


FORGOTTEN: dict[str, Callable[[dict], dict]] = {
    "labels": lambda parts: parts | {"policy_part": parts["policy_part"].split()[0]},
    "route": lambda parts: parts | {"policy_part": parts["policy_part"].partition(" ")[2]},
    "places": lambda parts: parts | {"deployment_ids": ()},
    "tenant": lambda parts: parts | {"tenant": ""},
}


@pytest.mark.parametrize("part", FORGOTTEN)
async def test_a_cache_that_forgets_something_is_found_out(monkeypatch, part):
    """An answer that was made for other labels, on another route, outside, or for another tenant: each leak shows."""
    key = PromptCache.key
    monkeypatch.setattr(PromptCache, "key", lambda self, **parts: key(self, **FORGOTTEN[part](parts)))
    outcome = await attack(120, seed=5, make=alike)
    assert any("cache: explained 'miss', seen 'hit'" in each for each in outcome.differing)


async def test_a_cache_that_keeps_what_a_fallback_said_is_found_out(monkeypatch):
    """What stood in for the wanted deployment is not given to those who come when it is well again."""
    monkeypatch.setattr(Passing, "storable", lambda self, decision: True)
    outcome = await attack(60, seed=5, make=lambda chance: alike(chance, model="small"))
    assert any("seen 'hit'" in each for each in outcome.differing)


async def test_requests_that_are_nearly_alike_share_no_answer():
    """Without a fault nothing differs: tenants, labels, routes and places keep answers apart."""
    outcome = await attack(120, seed=5, make=alike)
    assert outcome.differing == []
    assert outcome.kinds["cache hit"] > 10


def alike(chance: random.Random, model: str = "large") -> Sent:
    """One of few requests, so that an answer for one of them would do for many others."""
    messages = [{"role": "user", "content": "42"}]
    body = {"model": model, "messages": messages, "temperature": 0, "metadata": {"audience": "adults"}}
    labels = chance.choice(((), ("personal",), ("other",)))
    return Sent(chance.choice(("berlin", "boston")), chance.choice(("chat", "again", "cheap")), labels, body)
