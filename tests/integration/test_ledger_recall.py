"""A store that lost something is told what its gateways know."""

import asyncio
import itertools
import time
from contextlib import AsyncExitStack

import msgspec
import pytest

from gateway.budgets.books import Books
from gateway.budgets.claim import Claim
from gateway.budgets.ledger import Ledger
from gateway.budgets.limit import Limit
from gateway.budgets.scripts import Scripts
from gateway.budgets.settlements import Settling
from gateway.budgets.terms import Terms, tenant_keys
from gateway.errors import BudgetSpent, StoreUnavailable
from gateway.inference.deployment import FREE
from gateway.inference.usage import Usage
from gateway.store.client import Store
from gateway.store.script import RUN, Script

pytestmark = pytest.mark.store

MONTH = Limit(amount=10_000, unit="tokens", per="month")
ROLLING = Limit(amount=20_000, unit="tokens", per="rolling 1h", rolling_s=3_600)
LIMITS = (MONTH, ROLLING)


def claim(**changes) -> Claim:
    defaults = {
        "id": "r",
        "tenant": "acme",
        "feature": "",
        "limits": LIMITS,
        "rate": None,
        "input_tokens": 100,
        "output_tokens": 200,
        "price": FREE,
    }
    return Claim(**(defaults | changes))


@pytest.fixture
async def gateways(valkey_url, store):
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(Store(valkey_url, timeout_s=2.0)) for _ in range(3)]
        yield [await stack.enter_async_context(Ledger(opened)) for opened in stores]


async def spend(ledger: Ledger, tokens: int) -> None:
    async with ledger.hold(claim()) as hold:
        hold.charge(Usage(input_tokens=tokens), 0)
    await ledger._settler.flush(5.0)


async def used(ledger: Ledger) -> list[int]:
    await ledger._settler.flush(5.0)
    return [entry.limit.amount - entry.left for entry in await ledger.left("acme", LIMITS)]


async def until_used(ledger: Ledger, tokens: int) -> None:
    async with asyncio.timeout(5):
        while await used(ledger) != [tokens, tokens]:
            await asyncio.sleep(0.02)


async def lose(store: Store, dumped: bytes) -> None:
    """Another server process takes over, which has not heard the last of it."""
    key = tenant_keys("acme")[0]
    await store.command("RESTORE", key, 0, dumped, "REPLACE")
    await store.command("HSET", key, "run", "another process")


async def test_emptied_store(store, gateways):
    """What any gateway was told last is restored by itself, within a second or so; nobody has to ask."""
    one, two, three = gateways
    await spend(one, 50)
    await spend(two, 60)
    await spend(three, 70)
    await store.command("FLUSHALL")
    await until_used(one, 180)
    await spend(two, 20)
    assert await used(three) == [200, 200]


async def test_open_holds_of_an_emptied_store(store, gateways):
    """What is held when everything is lost stays held, by whichever gateway, and is booked once at its charge."""
    one, two, _ = gateways
    async with one.hold(claim()) as first, two.hold(claim()) as second:
        await store.command("FLUSHALL")
        await until_used(one, 600)
        async with asyncio.timeout(5):
            while await store.command("HLEN", tenant_keys("acme")[1]) != 2:
                await asyncio.sleep(0.02)
        first.charge(Usage(input_tokens=10), 0)
        second.charge(Usage(input_tokens=20), 0)
    await one._settler.flush(5)
    assert await used(two) == [30, 30]
    assert [counter.rebuilt for counter in await Books(store).counters("acme")] == [30, 30]


async def test_closed_budgets_wait_until_all_could_tell(store, gateways):
    """A gateway that knows little is not granted what others know to be spent."""
    rich, poor, _ = gateways
    await spend(poor, 10)
    await spend(rich, 9_900)
    await store.command("FLUSHALL")
    started = time.monotonic()
    with pytest.raises(BudgetSpent):
        await poor.take(claim())
    assert 0.3 < time.monotonic() - started < 3.0
    assert await used(poor) == [9_910, 9_910]


async def test_failover_that_lost_the_newest(store, gateways):
    """A promoted replica that had not heard of the last changes is told them, each counter's newest value."""
    one, two, _ = gateways
    await spend(one, 100)
    dumped = await store.command("DUMP", tenant_keys("acme")[0])
    await spend(two, 30)
    async with one.hold(claim()) as hold:
        await lose(store, dumped)
        await until_used(one, 430)
        hold.charge(Usage(input_tokens=5), 0)
    await one._settler.flush(5)
    assert await used(two) == [135, 135]


async def test_failover_that_lost_nothing(store, gateways):
    """A restart changes no counter, and holds that were open are settled as ever."""
    one, two, _ = gateways
    await spend(two, 30)
    async with one.hold(claim()) as hold:
        await lose(store, await store.command("DUMP", tenant_keys("acme")[0]))
        await spend(two, 40)
        assert await used(two) == [370, 370]
        hold.charge(Usage(input_tokens=1), 0)
    await one._settler.flush(5)
    assert await used(two) == [71, 71]
    assert [counter.rebuilt for counter in await Books(store).counters("acme")] == [71, 71]


async def test_two_restarts_at_once(store, gateways):
    """A gateway that missed an epoch tells nothing twice: what the store had heard of then, it has."""
    one, two, _ = gateways
    async with one.hold(claim()) as hold:
        epoch = one._memory.of("acme").epoch
        counters = dict(one._memory.of("acme").counters)
        hold.charge(Usage(input_tokens=1), 0)
    await one._settler.flush(5)
    for process in ("another", "a third"):
        await store.command("HSET", tenant_keys("acme")[0], "run", process)
        await two._recall._look()
        await spend(two, 10)
    one._memory.of("acme").epoch, one._memory.of("acme").counters = epoch, counters  # as if it had been frozen
    await one._recall._look()
    assert await used(one) == [21, 21]


async def test_hold_that_had_expired_before_a_restart(store, gateways):
    """What was booked because its lease had ended is not put back as held."""
    one, _, _ = gateways
    hold = await one.take(claim())
    await store.command("ZADD", tenant_keys("acme")[2], 1, hold.id)
    await store.script(Scripts().expire, tenant_keys("acme"), (RUN, msgspec.msgpack.encode(("",))))
    await lose(store, await store.command("DUMP", tenant_keys("acme")[0]))
    await one._recall._look()
    assert await store.command("HLEN", tenant_keys("acme")[1]) == 0
    hold.charge(Usage(input_tokens=1), 0)
    one.end(hold)
    assert await used(one) == [300, 300]


async def test_settlement_whose_answer_was_lost_with_the_store(store, gateways):
    """It may have been booked before everything was lost: too much is booked then, never too little."""
    one, _, _ = gateways
    hold = await one.take(claim())
    hold.charge(Usage(input_tokens=10), 0)
    entry = one._leases._open[hold.id]
    one.end(hold)
    settlement = one._settler._queue[-1]
    settlement.may_have_run = True
    await store.command("FLUSHALL")
    await until_used(one, 300)
    assert entry.hold.charged.tokens == 10


async def test_settlement_that_others_told_of_is_not_booked_again(store, gateways):
    """Executed, answered to nobody, lost by a failover, and told by a gateway that heard more: it counts once."""
    one, two, _ = gateways
    await spend(two, 1_000)
    hold = await one.take(claim())
    hold.charge(Usage(input_tokens=10), 0)
    dumped = [(key, await store.command("DUMP", key)) for key in tenant_keys("acme")[:3]]
    executed = Settling(one._leases._open[hold.id], one._memory, Scripts())
    assert (await store.script(*executed.call()))[0] == 1
    await spend(two, 5)
    for key, data in dumped:
        await store.command("RESTORE", key, 0, data, "REPLACE")
    await store.command("HSET", tenant_keys("acme")[0], "run", "another process")
    await two._recall._look()
    one.end(hold)
    one._settler._queue[-1].may_have_run = True
    await until_used(one, 1_015)
    assert await store.command("HLEN", tenant_keys("acme")[1]) == 0


@pytest.mark.parametrize("first", ["who missed an epoch", "who heard the last one"])
async def test_gateway_that_missed_an_epoch_tells_nothing_twice(store, gateways, first):
    """What it knows is part of what one that heard more tells, in whatever order they come."""
    one, two, _ = gateways
    for ledger in (one, two):
        ledger._tasks[3].cancel()  # it looks when it is told to
    await spend(one, 1)
    await spend(two, 1_000)
    await store.command("HSET", tenant_keys("acme")[0], "run", "another process")
    await one._recall._look()
    await spend(one, 50)
    await store.command("FLUSHALL")
    words = (RUN, msgspec.msgpack.encode((one._memory.of("acme").epoch,)))
    await store.script(Scripts().epoch, tenant_keys("acme"), words)  # of the first one, which did not hear the answer
    for ledger in (two, one) if first == "who missed an epoch" else (one, two):
        await ledger._recall._look()
    assert await used(one) == [1_051, 1_051]
    assert [counter.spent - counter.rebuilt for counter in await Books(store).counters("acme")] == [0, 0]


async def test_many_at_once_tell_it_once(store, gateways, monkeypatch):
    """However many requests notice that the store has changed, and however late, what is known is told in one call."""
    one, _, _ = gateways
    await spend(one, 100)
    one._tasks[3].cancel()  # it looks when it is told to
    told, script, late = [], one._store.script, (number / 200 for number in itertools.count())

    async def counting(called, keys, args):
        answer = await script(called, keys, args)
        told.extend([called.name] if called is one._scripts.recall else [])
        await asyncio.sleep(next(late) if called is one._scripts.hold else 0)
        return answer

    monkeypatch.setattr(one._store, "script", counting)
    await store.command("HSET", tenant_keys("acme")[0], "run", "another process")
    holds = await asyncio.gather(*(one.take(claim(output_tokens=1)) for _ in range(20)))
    assert len(told) == 1
    for hold in holds:
        hold.release()
        one.end(hold)
    assert await used(one) == [100, 100]


async def test_answers_that_are_understood_out_of_turn(gateways):
    """What is remembered of a counter is the newest word on it, in whatever order the answers are looked at."""
    one, _, _ = gateways
    await spend(one, 100)
    memory, told = one._memory.of("acme"), dict(one._memory.of("acme").counters)
    terms, newest = Terms("acme", LIMITS, ""), told["tokens:month"]
    older = [newest.start_s, 1, newest.end_s] * 2
    memory.note(memory.epoch, newest.seq - 1, terms, older, 0)
    memory.note_spent(memory.epoch, newest.seq - 1, terms, [newest.start_s, 1] * 2, 0)
    assert memory.counters == told


async def test_young_server_and_a_gateway_that_knows_nothing(store, gateways, monkeypatch):
    """On a server that has just started even an unknown tenant waits, for others may know it."""
    one, _, _ = gateways
    monkeypatch.setattr(Store, "age", lambda *_: "young")
    started = time.monotonic()
    await spend(one, 1)
    assert time.monotonic() - started > 0.9


@pytest.mark.parametrize(("age", "waits"), [("local", False), ("", True)])
async def test_gateway_that_starts_with_its_store(store, gateways, monkeypatch, age, waits):
    """Nobody knows more than a gateway's own store when both have just started: its first request does not wait."""
    monkeypatch.setattr(Store, "age", lambda *_: age)
    one, two, _ = gateways
    await spend(one, 10)
    one._memory._tenants.clear()  # it ends, and tells nobody anything
    await store.command("HSET", tenant_keys("acme")[0], "run", "the process of last week")
    started = time.monotonic()
    async with two.hold(claim()) as hold:
        assert hold.left[0].left == 10_000 - 10 - 300
    assert (time.monotonic() - started > 0.9) == waits


async def test_store_that_comes_and_goes(store, gateways):
    """A claim that fails open does not wait for what others know."""
    one, _, _ = gateways
    await spend(one, 1)
    await store.command("FLUSHALL")
    started = time.monotonic()
    await one.take(claim(fail="open"))
    assert time.monotonic() - started < 2


# --- the usage log ----------------------------------------------------------------------------------------------

FILL = """
local packed = cmsgpack.pack({{'tokens:month', tonumber(ARGV[1]), tonumber(ARGV[2]), 1},
  {'tokens:rolling-3600', tonumber(ARGV[3]), tonumber(ARGV[2]), 1}})
for i = 1, 5600 do
  redis.call('XADD', KEYS[4], '*', 'id', 'x', 'how', 'settled', 'feature', '', 'tokens', '1', 'nanousd', '0',
    'estimated', '0', 'at', packed)
end
"""


async def test_old_entries_are_carried(store, gateways):
    """A long log is folded into sums, bit by bit, and the counters can be made from both."""
    one, _, _ = gateways
    await spend(one, 0)
    counters = {counter.field: counter for counter in await Books(store).counters("acme")}
    start = int(counters["tokens:month"].start.timestamp())
    part = int(counters["tokens:rolling-3600"].start.timestamp())
    await store.script(Script("fill", FILL), tenant_keys("acme"), (start, start + 40 * 86_400, part))
    expire = (Scripts().expire, tenant_keys("acme"), (RUN, msgspec.msgpack.encode(("",))))
    for _ in range(3):
        await store.script(*expire)
    assert await store.command("XLEN", tenant_keys("acme")[3]) == 5_101
    assert await store.command("HLEN", tenant_keys("acme")[5]) == 2
    assert [counter.rebuilt for counter in await Books(store).counters("acme", rebuild=True)] == [5_600, 5_600]
    assert await used(one) == [5_600, 5_600]


async def test_gateways_of_two_versions(store, gateways):
    """A script of another text works on the same data, and what it does not know it leaves alone."""
    one, two, _ = gateways
    for name in ("hold", "settle", "renew", "left"):
        script: Script = getattr(two._scripts, name)
        setattr(two._scripts, name, Script(name, script.text.split("\n", 1)[1] + "\n-- another version"))
    await spend(one, 10)
    await store.command("HSET", tenant_keys("acme")[0], "of-a-newer-version", "x")
    await spend(two, 20)
    await spend(one, 30)
    assert await used(two) == [60, 60]
    assert await store.command("HGET", tenant_keys("acme")[0], "of-a-newer-version") == b"x"
    assert two._scripts.hold.sha != one._scripts.hold.sha


async def test_store_that_is_gone_while_telling(store, gateways, monkeypatch):
    """A gateway that cannot tell is not granted anything that fails closed."""
    one, _, _ = gateways
    await spend(one, 10)

    async def gone(*_: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(one._recall, "tell", gone)
    await store.command("FLUSHALL")
    with pytest.raises(StoreUnavailable):
        await one.take(claim())
