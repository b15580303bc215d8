"""Single flight on a real Valkey: in one process, and between two replicas that share nothing else."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from gateway.cache import flights as module
from gateway.cache.flights import Flights, Trip
from gateway.cache.prompts import CacheRule, PromptCache, lease_of
from gateway.errors import BackendCut, BudgetSpent
from gateway.inference.events import Finished, TextDelta
from gateway.store.client import Store

pytestmark = pytest.mark.store

HOUR = CacheRule(ttl_s=3_600)
LIMIT_S = 20.0
"""What is waited for comes at once, unless the machine is busy."""
TOKENS = ["The", " cat", " sat", " on", " the", " mat"]


async def until(condition):
    """Wait for something that happens by itself."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.005)


class Backend:
    """Answers word by word, one each time its gate is opened; counts who asked, and who was given up."""

    def __init__(self, words=TOKENS):
        self.asked = 0
        self.given_up = 0
        self.words = words
        self._steps = asyncio.Semaphore(0)
        self.fails_with = None
        self.keeps = True

    async def begun(self):
        """Whoever asked first has the lease by now: who comes later on another replica reads along."""
        await until(lambda: self.asked == 1)

    def step(self, count=1):
        for _ in range(count):
            self._steps.release()

    async def answer(self, emit):
        self.asked += 1
        if self.fails_with is not None:
            raise self.fails_with
        try:
            for word in self.words:
                await self._steps.acquire()
                await emit(TextDelta(word))
            await emit(Finished("stop"))
        except asyncio.CancelledError:
            self.given_up += 1
            raise


class Replica:
    """A gateway's cache and flights."""

    def __init__(self, cache, flights):
        self.cache, self.flights = cache, flights

    def ask(self, backend, key="k"):
        """A request on its way: the task, what it was shown, and how often it joined."""
        rider = Rider()

        async def fly(emit):
            events = []

            async def both(event):
                events.append(event)
                await emit(event)

            await backend.answer(both)
            return self.cache.put(key, events, HOUR, stream=True) if backend.keeps else None

        trip = Trip(key=key, stream=True, fly=fly, accepts=lambda _found: True, joining=rider.join)
        rider.task = asyncio.create_task(self._ride(trip, rider))
        return rider

    async def read_by_another(self, key="k"):
        """Another replica has said that it wants to read along what this one fetches."""
        name = lease_of(key, stream=True)
        await until(lambda: self.flights._flights[name].wanted)

    async def _ride(self, trip, rider):
        found = await self.flights.ride(trip, rider.emit)
        if found is not None:
            rider.found = True
            for event in found.events:
                await rider.emit(event)


class Rider:
    def __init__(self):
        self.task = None
        self.events = []
        self.joined = 0
        self.found = False

    @asynccontextmanager
    async def join(self):
        self.joined += 1
        yield lambda _event: None

    async def emit(self, event):
        self.events.append(event)

    @property
    def text(self):
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    async def shown(self, text):
        """Wait until it has been shown this."""
        await until(lambda: self.text == text)

    async def answered(self):
        await asyncio.wait_for(self.task, LIMIT_S)
        assert self.text == "".join(TOKENS)
        assert [event for event in self.events if isinstance(event, Finished)] == [Finished("stop")]

    async def leave(self):
        self.task.cancel()
        await asyncio.wait((self.task,))


@pytest.fixture
async def replicas(store, valkey_url):
    """Two of them, each with a connection of its own."""
    async with AsyncExitStack() as stack:
        made = []
        for url in (valkey_url, valkey_url):
            # A busy test machine is not what is tested: the time limit is generous.
            own = await stack.enter_async_context(Store(url, timeout_s=10.0))
            cache = await stack.enter_async_context(PromptCache(own, secret=b"s"))
            made.append(Replica(cache, await stack.enter_async_context(Flights(cache))))
        yield made


async def test_one_attempt_for_all_in_a_process(replicas):
    """Requests that come while the first is being answered read along from the beginning; the backend is asked once."""
    one, backend = replicas[0], Backend()
    riders = [one.ask(backend) for _ in range(20)]
    backend.step(2)
    await asyncio.gather(*(rider.shown("The cat") for rider in riders))
    riders.append(one.ask(backend))
    await riders[-1].shown("The cat")
    backend.step(9)
    for rider in riders:
        await rider.answered()
    assert backend.asked == 1
    assert sum(rider.joined for rider in riders) == 20


async def test_one_attempt_for_all_replicas(replicas):
    """Another replica's requests are shown each word while the first one's answer is still on its way."""
    backend = Backend()
    first = replicas[0].ask(backend)
    await backend.begun()
    other = [replicas[1].ask(backend) for _ in range(3)]
    for count, text in enumerate(["The", "The cat", "The cat sat"], start=1):
        backend.step()
        await asyncio.gather(*(rider.shown(text) for rider in (first, *other)))
        assert len(first.events) == count
    backend.step(9)
    for rider in (first, *other):
        await rider.answered()
    assert backend.asked == 1
    assert [rider.joined for rider in (first, *other)] == [0, 1, 1, 1]


async def test_the_answer_is_found_when_the_flight_is_over(replicas):
    """Whoever comes after the end finds the answer: between the end of a flight and its entry there is no gap."""
    backend = Backend()
    backend.step(99)
    for replica in (*replicas, *replicas):
        await replica.ask(backend).answered()
    assert backend.asked == 1


async def test_many_at_once_on_both(replicas):
    """However requests and replicas interleave, the backend is asked once for each prompt."""
    backends = {f"k{number}": Backend() for number in range(20)}
    riders = [replica.ask(backends[key], key) for key in backends for replica in replicas * 3]
    await asyncio.sleep(0.02)
    for backend in backends.values():
        backend.step(99)
    for rider in riders:
        await rider.answered()
    assert {backend.asked for backend in backends.values()} == {1}


async def test_the_first_one_leaves(replicas):
    """The answer goes on for those who read along, and nothing is asked again."""
    backend = Backend()
    first, second = replicas[0].ask(backend), replicas[0].ask(backend)
    backend.step()
    await asyncio.gather(first.shown("The"), second.shown("The"))
    await first.leave()
    backend.step(9)
    await second.answered()
    assert (backend.asked, backend.given_up) == (1, 0)


async def test_the_first_one_leaves_and_another_replica_reads_on(replicas):
    """Readers on another replica count as readers."""
    backend = Backend()
    first = replicas[0].ask(backend)
    await backend.begun()
    other = replicas[1].ask(backend)
    backend.step()
    await other.shown("The")
    await first.leave()
    backend.step(9)
    await other.answered()
    assert (backend.asked, backend.given_up) == (1, 0)


async def test_everybody_leaves(replicas):
    """When nobody reads any more, the attempt ends at once, and the next request begins a new one."""
    backend = Backend()
    riders = [replicas[0].ask(backend) for _ in range(3)]
    backend.step()
    await asyncio.gather(*(rider.shown("The") for rider in riders))
    for rider in riders:
        await rider.leave()
    assert backend.given_up == 1
    backend.step(9)
    await replicas[1].ask(backend).answered()
    assert backend.asked == 2


@pytest.fixture
def short_lease(monkeypatch):
    """A dead replica is noticed soon."""
    monkeypatch.setattr(module, "LEASE_MS", 800)
    monkeypatch.setattr(module, "_RENEW_S", 0.05)
    from gateway.cache import prompts

    monkeypatch.setattr(prompts, "LEASE_MS", 800)


async def freeze(replica):
    """The replica stops as if killed: its tasks are gone, its lease stays."""
    for task in tuple(asyncio.all_tasks()):
        if task.get_name() == "flight publisher":
            task.cancel()
            await asyncio.wait((task,))


async def test_a_replica_that_dies_is_replaced_unnoticed(replicas, short_lease):
    """Its readers elsewhere get the rest from a new attempt that says the same, each word once."""
    dying, backend = Backend(), Backend()
    replicas[0].ask(dying)
    await dying.begun()
    others = [replicas[1].ask(backend) for _ in range(3)]
    dying.step(2)
    await asyncio.gather(*(rider.shown("The cat") for rider in others))
    await freeze(replicas[0])
    backend.step(99)
    for rider in others:
        await rider.answered()
    assert (dying.asked, backend.asked) == (1, 1)


async def test_a_replica_that_dies_before_its_first_word(replicas, short_lease):
    """Nothing was shown, so whatever the new attempt says is the answer."""
    dying, backend = Backend(["never"]), Backend()
    replicas[0].ask(dying)
    await dying.begun()
    other = replicas[1].ask(backend)
    await replicas[0].read_by_another()
    await freeze(replicas[0])
    backend.step(99)
    await other.answered()


async def test_a_replacement_that_says_something_else(replicas, short_lease):
    """Readers who were shown the beginning of another answer get an error, not a mixture."""
    dying, backend = Backend(), Backend(["A", " dog"])
    replicas[0].ask(dying)
    await dying.begun()
    other = replicas[1].ask(backend)
    dying.step()
    await other.shown("The")
    await freeze(replicas[0])
    backend.step(99)
    with pytest.raises(BackendCut):
        await asyncio.wait_for(other.task, LIMIT_S)
    assert other.text == "The"


async def test_a_refusal_of_the_first_ones_budget_is_its_own(replicas):
    """One whose budget is spent is refused; the others are answered by a new attempt."""
    one, poor, rich = replicas[0], Backend(), Backend()
    poor.fails_with = BudgetSpent("spent")
    first = one.ask(poor)
    others = [one.ask(rich) for _ in range(3)]
    rich.step(99)
    with pytest.raises(BudgetSpent):
        await first.task
    for rider in others:
        await rider.answered()
    assert rich.asked == 1


async def test_a_failure_of_the_backend_is_everybodys(replicas):
    """When no deployment could answer, nobody who reads along asks them all again."""
    backend = Backend()
    backend.fails_with = BackendCut("cut")
    riders = [replicas[0].ask(backend) for _ in range(4)]
    outcomes = await asyncio.gather(*(rider.task for rider in riders), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {BackendCut}
    assert backend.asked == 1


async def test_an_answer_that_is_not_kept_is_read_along_all_the_same(replicas):
    """An answer that the cache does not take (its limit cut it) still reaches those who came meanwhile."""
    backend = Backend()
    backend.keeps = False
    first = replicas[0].ask(backend)
    await backend.begun()
    other = replicas[1].ask(backend)
    await replicas[0].read_by_another()
    backend.step(99)
    await first.answered()
    await other.answered()
    assert backend.asked == 1


async def test_without_the_store_each_replica_flies_alone():
    """A store that is gone costs the sharing between replicas, not the answer, nor the sharing in a process."""
    backend = Backend()
    async with (
        Store("unix:///nowhere/at/all") as absent,
        PromptCache(absent, secret=b"s") as cache,
        Flights(cache) as flights,
    ):
        replica = Replica(cache, flights)
        riders = [replica.ask(backend) for _ in range(3)]
        backend.step(99)
        for rider in riders:
            await rider.answered()
    assert backend.asked == 1


async def test_what_is_published_goes_away(replicas, store):
    """After the answer nothing of the flight is left in the store but for a bounded time."""
    backend = Backend()
    first = replicas[0].ask(backend)
    await backend.begun()
    other = replicas[1].ask(backend)
    backend.step(99)
    await asyncio.gather(first.answered(), other.answered())
    await until(lambda: not replicas[0].flights._tasks and not replicas[1].flights._tasks)
    left = [name.decode() for name in await store.command("KEYS", "fd1:cache:*")]
    assert not any(name.endswith(":lease") for name in left)
    for name in left:
        assert 0 < await store.command("PTTL", name) <= 3_600_000
    assert not replicas[0].flights._flights
    assert not replicas[1].flights._flights


async def test_a_stale_answer_is_renewed_once(replicas):
    """Whoever is given a stale answer has a fresh one fetched, for nobody, and not twice at the same time."""
    backend = Backend()
    rider = Rider()

    async def fly(emit):
        await backend.answer(emit)
        return replicas[0].cache.put("k", [TextDelta("new"), Finished("stop")], HOUR, stream=True)

    trip = Trip(key="k", stream=True, fly=fly, accepts=lambda _found: True, joining=rider.join)
    for replica in (*replicas, *replicas):
        await replica.flights.refresh(trip)
    await asyncio.sleep(0.05)
    backend.step(99)
    async with asyncio.timeout(LIMIT_S):
        while (await replicas[1].cache.look_up("k", stream=True)).found is None:
            await asyncio.sleep(0.01)
    assert backend.asked == 1
