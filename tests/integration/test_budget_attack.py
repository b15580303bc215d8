"""A few seeds of what `python -m tests.attack.budget` and `tests.attack.aborts` do by the hundred."""

import pytest

from tests.attack.aborts import abort
from tests.attack.budget import attack
from tests.attack.stores import KINDS

pytestmark = [pytest.mark.store, pytest.mark.slow]


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_overspends(kind):
    """Kills, freezes, failovers, lost data and wrong clocks: what is billed and booked stays within the bounds."""
    outcome = await attack(KINDS.index(kind), seconds=3.0, kind=kind)
    assert outcome.broken == [], outcome
    assert outcome.notes["calls"] > 0


async def test_clients_that_leave():
    """However many leave in the middle, nothing stays held, counted as in flight, or connected."""
    left = await abort(400)
    assert left.aborted > 50
    assert (left.holds, left.differing, left.in_flight, left.backend_open) == (0, 0, 0, 0)
    assert left.descriptors <= left.descriptors_before
