import asyncio
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.places import Places
from gateway.errors import BackendBusy


class Load:
    """Requests that ask for a place, hold it until they are let go, and use what they are told to."""

    def __init__(self, number=1, most_waiting=1_000):
        self.places = Places(number, most_waiting, backend="gpu")
        self.running = deque()
        self.served = Counter()
        self.order = []
        self.tasks = []

    def ask(self, tenant, *, weight=1.0, tokens=100, background=False):
        task = asyncio.create_task(self._ask(tenant, weight, tokens, background))
        self.tasks.append(task)
        return task

    async def _ask(self, tenant, weight, tokens, background):
        async with self.places.take(tenant, weight=weight, input_tokens=0, background=background) as place:
            go = asyncio.Event()
            self.running.append(go)
            self.order.append(tenant)
            await go.wait()
            place.used(input_tokens=0, output_tokens=tokens)
            self.served[tenant] += tokens

    async def finish_one(self):
        self.running.popleft().set()
        await self.settle()

    @staticmethod
    async def settle():
        for _ in range(6):
            await asyncio.sleep(0)

    async def end(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def load():
    made = []

    def make(*args, **named):
        made.append(Load(*args, **named))
        return made[-1]

    yield make
    for one in made:
        await one.end()


async def test_a_flood_does_not_delay_others(load):
    """After a thousand requests of one tenant, another's first request is the next to be served."""
    gpu = load()
    for _ in range(500):
        gpu.ask("loud")
    await gpu.settle()
    gpu.ask("quiet")
    await gpu.settle()
    await gpu.finish_one()
    assert gpu.order == ["loud", "quiet"]


async def test_tokens_count_and_not_requests(load):
    """A tenant with answers ten times as long gets a tenth of the turns."""
    gpu = load()
    for _ in range(300):
        gpu.ask("long", tokens=1_000)
        gpu.ask("short", tokens=100)
    await gpu.settle()
    for _ in range(120):
        await gpu.finish_one()
    assert 0.7 < gpu.served["long"] / gpu.served["short"] < 1.4


async def test_weights(load):
    """A tenant of weight 3 is served three times as many tokens."""
    gpu = load(number=2)
    for _ in range(400):
        gpu.ask("heavy", weight=3.0)
        gpu.ask("light")
    await gpu.settle()
    for _ in range(200):
        await gpu.finish_one()
    assert 2.6 < gpu.served["heavy"] / gpu.served["light"] < 3.4


async def test_first_come_first_served_within_a_tenant(load):
    """A tenant's own requests keep their order."""
    gpu = load()
    tasks = [gpu.ask("one") for _ in range(5)]
    await gpu.settle()
    for number in range(5):
        assert [task.done() for task in tasks].count(True) == number
        assert all(task.done() for task in tasks[:number])
        await gpu.finish_one()


async def test_a_pause_saves_nothing_up(load):
    """Who was away for long does not keep the others out when it comes back with many requests."""
    gpu = load()
    for _ in range(200):
        gpu.ask("steady")
    await gpu.settle()
    for _ in range(100):
        await gpu.finish_one()
    for _ in range(100):
        gpu.ask("back")
    await gpu.settle()
    before = len(gpu.order)
    for _ in range(40):
        await gpu.finish_one()
    turns = Counter(gpu.order[before:])
    assert abs(turns["back"] - turns["steady"]) <= 4


async def test_the_queue_is_bounded(load):
    """One more than may wait is refused at once, with a time to come again; who waits is not disturbed."""
    gpu = load(number=1, most_waiting=3)
    tasks = [gpu.ask("one") for _ in range(4)]
    await gpu.settle()
    with pytest.raises(BackendBusy) as told:
        await gpu.ask("two")
    assert told.value.retry_after_s >= 1
    assert told.value.retryable
    for _ in range(4):
        await gpu.finish_one()
    assert all(task.done() for task in tasks)


async def test_who_leaves_while_waiting(load):
    """A request that is given up leaves no hole: places go on, and none is lost."""
    gpu = load(number=1)
    tasks = [gpu.ask("one") for _ in range(6)]
    await gpu.settle()
    tasks[1].cancel()
    tasks[3].cancel()
    await gpu.settle()
    assert gpu.places.waiting == 3
    for _ in range(4):
        await gpu.finish_one()
    assert sum(task.done() and not task.cancelled() for task in tasks) == 4
    assert gpu.places._free == 1


async def test_who_leaves_at_the_moment_of_its_turn(load):
    """A place that was just given to a request that is being given up goes to the next one."""
    gpu = load(number=1)
    tasks = [gpu.ask("one") for _ in range(3)]
    await gpu.settle()
    gpu.running.popleft().set()
    while not gpu.places._queues or gpu.places.waiting == 2:
        await asyncio.sleep(0)
    tasks[1].cancel()
    await gpu.settle()
    assert len(gpu.order) == 2 or not tasks[2].done()
    while gpu.running:
        await gpu.finish_one()
    assert tasks[2].done()
    assert gpu.places._free == 1


async def test_nothing_is_remembered_when_nobody_is_there(load):
    """The counters of an idle backend are empty: memory is bounded, and everybody begins alike."""
    gpu = load(number=2)
    for number in range(50):
        gpu.ask(f"tenant {number}")
    await gpu.settle()
    while gpu.running:
        await gpu.finish_one()
    assert gpu.places._served == gpu.places._charged == {}
    assert gpu.places._running == {}
    assert gpu.places._queues == {}


moves = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("abc"), st.integers(1, 400)),
        st.tuples(st.just("finish"), st.none(), st.none()),
        st.tuples(st.just("leave"), st.integers(0, 50), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(moves, st.integers(1, 3), st.integers(0, 8))
def test_places_are_never_lost_or_invented(steps, number, most_waiting):
    """Whatever comes, finishes and leaves in whatever order: no more run than there are places, and all come back."""

    async def play():
        gpu = Load(number, most_waiting)
        for kind, what, tokens in steps:
            if kind == "ask":
                gpu.ask(what, tokens=tokens)
            elif kind == "finish" and gpu.running:
                gpu.running.popleft().set()
            elif kind == "leave" and what < len(gpu.tasks):
                gpu.tasks[what].cancel()
            await gpu.settle()
            assert number - gpu.places._free <= number
            assert sum(gpu.places._running.values()) == number - gpu.places._free
            assert gpu.places.waiting == sum(map(len, gpu.places._queues.values())) <= most_waiting
            assert gpu.places.waiting == 0 or gpu.places._free == 0
        await gpu.end()
        assert gpu.places._free == number
        assert gpu.places.waiting == 0

    asyncio.run(play())


async def test_what_nobody_waits_for_comes_last(load):
    """A place goes to a request that somebody waits for, of whatever tenant, before one in the background."""
    places = load()
    places.ask("a")
    await places.settle()
    places.ask("b", background=True)
    places.ask("a", background=True)
    await places.settle()
    places.ask("a", tokens=10_000)
    places.ask("a")
    await places.settle()
    for _ in range(4):
        await places.finish_one()
    assert places.order == ["a", "a", "a", "b", "a"]
    assert places.places.waiting == 0
