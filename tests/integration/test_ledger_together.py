"""Holds that end in the same moment are settled in one call, and it is as if each had been settled by itself."""

import msgspec
import pytest

from gateway.budgets.claim import Claim
from gateway.budgets.ledger import Ledger
from gateway.budgets.limit import Limit, Rate
from gateway.budgets.terms import tenant_keys
from gateway.inference.deployment import Price
from gateway.inference.usage import Usage
from gateway.store.client import Store
from gateway.store.script import Script

pytestmark = pytest.mark.store

LIMITS = (
    Limit(amount=1_000_000, unit="tokens", per="month"),
    Limit(amount=10**12, unit="nanousd", per="rolling 24h", rolling_s=86_400),
    Limit(amount=500_000, unit="tokens", per="day", feature="chat"),
)
RATE = Rate(requests=1_000, tokens=1_000_000, per_s=10_000_000)
RECALLED = Script(
    "recalled",
    "local record = cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1])); record.recalled = 1;"
    "redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(record))",
)
HOLDS = 12


@pytest.fixture
def called(monkeypatch):
    """The scripts of calls that travel together."""
    names, scripts = [], Store.scripts

    async def watched(self, calls):
        names.extend(call.script.name for call in calls)
        return await scripts(self, calls)

    monkeypatch.setattr(Store, "scripts", watched)
    return names


async def taken(ledger, tenant, *, feature="chat"):
    claim = Claim(
        id="r",
        tenant=tenant,
        feature=feature,
        limits=LIMITS,
        rate=RATE,
        input_tokens=100,
        output_tokens=200,
        price=Price(input_nanousd=10**9, output_nanousd=3 * 10**9, cached_input_nanousd=10**9),
    )
    return [await ledger.take(claim) for _ in range(HOLDS)]


def use(holds):
    """Less than was held, more, nothing; and of one nothing is said."""
    for number, hold in enumerate(holds):
        if number == 3:
            hold.release()
        elif number != 4:
            hold.charge(Usage(input_tokens=number * 10, output_tokens=number * 40), number * 1_000)


async def spoil(store, holds, tenant):
    """One that has ended already, and one that was told by its gateway after the store had lost it."""
    keys = tenant_keys(tenant)
    await store.command("HDEL", keys[1], holds[5].id)
    await store.command("ZREM", keys[2], holds[5].id)
    await store.script(RECALLED, (keys[1],), (holds[6].id,))


async def state(ledger, store, tenant):
    """What is left, what is open, the usage log, and the rate's level."""
    keys = tenant_keys(tenant)
    left = [entry.left for entry in await ledger.left(tenant, LIMITS)]
    entries = await store.command("XRANGE", keys[3], "-", "+")
    log = sorted(
        tuple(
            msgspec.msgpack.decode(value) if name == b"at" else value
            for name, value in zip(words[::2], words[1::2], strict=True)
            if name not in {b"id", b"taken_us"}
        )
        for _, words in entries
    )
    level = float((await store.command("HGET", keys[0], "rate:tokens")).split()[0])
    return left, await store.command("HLEN", keys[1]), await store.command("ZCARD", keys[2]), log, round(level, 0)


async def test_all_at_once_is_as_one_by_one(store, called):
    """Counters of all kinds of windows, the rate, the usage log and what stays open are the same."""
    async with Ledger(store) as ledger:
        for tenant in ("alone", "together"):
            holds = await taken(ledger, tenant)
            await spoil(store, holds, tenant)
            use(holds)
            called.clear()
            for hold in holds:
                ledger.end(hold)
                if tenant == "alone":
                    await ledger._settler.flush(2.0)
            await ledger._settler.flush(2.0)
            many = called.count("settle_many")
            assert (many, called.count("settle")) == ((0, HOLDS) if tenant == "alone" else (1, 2))
        assert await state(ledger, store, "alone") == await state(ledger, store, "together")


async def test_features_apart(store, called):
    """Holds under other limits go in another call."""
    async with Ledger(store) as ledger:
        holds = [*await taken(ledger, "t"), *await taken(ledger, "t", feature="other")]
        for hold in holds:
            hold.charge(Usage(input_tokens=10), 1_000)
            ledger.end(hold)
        await ledger._settler.flush(2.0)
        assert called.count("settle_many") == 2
        left = [entry.left for entry in await ledger.left("t", LIMITS)]
        assert left == [1_000_000 - 240, 10**12 - 24_000, 500_000 - 120]


async def test_the_same_twice(store):
    """A hold that stands twice in one call is booked once."""
    async with Ledger(store) as ledger:
        holds = await taken(ledger, "t")
        use(holds)
        entries = [ledger._leases.get(hold.id) for hold in holds]
        for hold in holds:
            ledger.end(hold)
        for entry in entries:
            ledger._leases.add(entry)
            ledger.end(entry.hold)
        await ledger._settler.flush(2.0)
        after, *_ = await state(ledger, store, "t")
        again = await taken(ledger, "other")
        use(again)
        for hold in again:
            ledger.end(hold)
        await ledger._settler.flush(2.0)
        assert after == (await state(ledger, store, "other"))[0]


async def test_a_store_that_was_emptied_meanwhile(store):
    """Holds that the store lost are settled all the same, at what they cost."""
    async with Ledger(store) as ledger:
        holds = await taken(ledger, "t")
        await store.command("FLUSHALL")
        for hold in holds:
            hold.charge(Usage(input_tokens=10), 1_000)
            ledger.end(hold)
        await ledger._settler.flush(5.0)
        left = [entry.left for entry in await ledger.left("t", LIMITS)]
        assert left == [1_000_000 - 120, 10**12 - 12_000, 500_000 - 120]
        assert await store.command("HLEN", tenant_keys("t")[1]) == 0
