"""Some hundred of the requests that `python -m tests.attack.explain` compares by the ten thousand."""

import pytest

from tests.attack.explain import attack

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
