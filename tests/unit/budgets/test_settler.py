"""What becomes of settlements when something goes wrong that nobody thought of."""

import asyncio

import pytest

from gateway.budgets.settlements import Outcome
from gateway.budgets.settler import Settler


class Booked:
    """A settlement that is booked by any answer; one that is broken cannot say what it asks for, or hear the answer."""

    def __init__(self, tenant, *, broken=""):
        self.tenant, self.broken = tenant, broken
        self.may_have_run, self.refusals, self.answers = False, 0, []

    @property
    def group(self):
        return self

    def call(self):
        if self.broken == "call":
            raise KeyError("a mistake")
        return self.tenant

    def answered(self, answer):
        if self.broken == "answer":
            raise KeyError("a mistake")
        self.answers.append(answer)
        return Outcome.DONE


class Store:
    healthy = True

    async def scripts(self, calls):
        return [[call] for call in calls]


@pytest.fixture
async def settler():
    async def tell(_tenant):
        raise AssertionError

    made = Settler(Store(), tell)
    task = asyncio.create_task(made.run())
    yield made
    assert not task.done()
    task.cancel()


@pytest.mark.parametrize("broken", ["call", "answer"])
async def test_one_that_is_broken_holds_up_no_other(settler, broken):
    """It is dropped, its hold expires; those of the same batch and those that come later are booked, once each."""
    batch = [Booked("a"), Booked("b", broken=broken), Booked("c")]
    for settlement in batch:
        settler.add(settlement)
    await settler.flush(2.0)
    settler.add(later := Booked("d"))
    await settler.flush(2.0)
    assert [settlement.answers for settlement in (*batch, later)] == [[["a"]], [], [["c"]], [["d"]]]
    assert settler.dropped == 1
    assert not any(settler.waiting(tenant) for tenant in "abcd")
