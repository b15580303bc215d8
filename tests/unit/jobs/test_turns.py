import asyncio

from gateway.jobs.turns import Turns


async def test_a_pause_holds_a_tenant_and_nobody_else():
    """While a tenant's rate is used up none of its lines begins; others' do."""
    turns, loop = Turns(), asyncio.get_running_loop()
    began = loop.time()
    turns.pause("a", 0.2)
    turns.pause("a", 0.1)
    await turns.free("b")
    assert loop.time() - began < 0.15
    await turns.free("a")
    assert loop.time() - began >= 0.2
    await turns.free("a")


async def test_what_another_gives_back_is_waited_for():
    """Who is refused waits for the next of the tenant's lines to be over; where none runs, nothing will come."""
    turns = Turns()
    assert not await turns.another_ended("a")
    with turns.running("b"):
        assert not await turns.another_ended("a")
    with turns.running("a"):
        waiting = [asyncio.create_task(turns.another_ended("a")) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting)
    assert await asyncio.gather(*waiting) == [True, True]
