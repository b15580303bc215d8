"""The ledger on a real Valkey: what happens to budgets when things go well, and when they end in the middle."""

import asyncio
import os
import random
import signal
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from gateway.budgets.claim import Claim
from gateway.budgets.ledger import Ledger
from gateway.budgets.limit import Limit, Rate
from gateway.budgets.settlements import GivingUp
from gateway.budgets.terms import CLOSED, tenant_keys
from gateway.budgets.windows import window
from gateway.errors import BudgetSpent, RateLimited, StoreUnavailable
from gateway.inference.deployment import FREE, Price
from gateway.inference.usage import Usage
from gateway.store.client import Store
from gateway.store.embedded import EmbeddedValkey
from gateway.store.script import RUN, Script

pytestmark = pytest.mark.store

TOKENS = Limit(amount=1_000, unit="tokens", per="month")
MONEY = Limit(amount=1_000_000, unit="nanousd", per="month")
PRICE = Price(input_nanousd=1_000_000_000, output_nanousd=3_000_000_000, cached_input_nanousd=1_000_000_000)
"""1,000 nano-dollars an input token, 3,000 an output token."""


pack = msgspec.msgpack.encode
OPEN = Script("open", "return {redis.call('HLEN', KEYS[2]), redis.call('ZCARD', KEYS[3])}")


def claim(**changes) -> Claim:
    defaults = {
        "id": "r",
        "tenant": "acme",
        "feature": "",
        "limits": (TOKENS,),
        "rate": None,
        "input_tokens": 100,
        "output_tokens": 200,
        "price": FREE,
    }
    return Claim(**(defaults | changes))


def used(input_tokens: int, output_tokens: int) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)


@pytest.fixture
async def ledger(store):
    async with Ledger(store) as opened:
        yield opened


async def left(ledger: Ledger, limit: Limit = TOKENS, tenant: str = "acme") -> int:
    await ledger._settler.flush(2.0)
    return (await ledger.left(tenant, (limit,)))[0].left


async def open_in_store(store: Store, tenant: str = "acme") -> int:
    holds, leases = await store.script(OPEN, tenant_keys(tenant), ())
    assert leases == holds
    return holds


async def usage_log(store: Store, tenant: str = "acme") -> list[dict[str, str]]:
    entries = await store.command("XRANGE", tenant_keys(tenant)[3], "-", "+")
    return [
        {name.decode(): value.decode(errors="replace") for name, value in zip(fields[::2], fields[1::2], strict=True)}
        for _, fields in entries
    ]


async def until(condition, limit_s=5.0):
    """Wait for something that happens by itself."""
    async with asyncio.timeout(limit_s):
        while not await condition():
            await asyncio.sleep(0.01)


# --- holding and settling -------------------------------------------------------------------------------------


async def test_hold_and_charge(ledger, store):
    """While it is held the worst case is taken; afterwards what was charged."""
    async with ledger.hold(claim()) as hold:
        assert hold.output_tokens == 200
        assert await left(ledger) == 700
        assert hold.left[0].left == 700
        hold.charge(used(50, 1), 0)
        hold.charge(used(50, 10), 0)
    assert await left(ledger) == 940
    assert await open_in_store(store) == 0
    [entry] = await usage_log(store)
    assert (entry["how"], entry["tokens"], entry["input"], entry["output"]) == ("settled", "60", "50", "10")


@pytest.mark.parametrize("first", ["tokens", "money"])
async def test_the_limit_that_is_short_is_the_one_that_is_told(ledger, first):
    """A limit with room enough is not said to be spent, though it lasts longer than the one that is."""
    tokens, money = Limit(amount=150, unit="tokens", per="day"), Limit(amount=10**9, unit="nanousd", per="month")
    limits = (tokens, money) if first == "tokens" else (money, tokens)
    with pytest.raises(BudgetSpent, match="150 tokens per day"):
        async with ledger.hold(claim(limits=limits, input_tokens=400, price=PRICE)):
            pass


async def test_nothing_said_about_what_was_used(ledger):
    """A hold that nobody charged is booked at what it reserved: rather too much than too little."""
    async with ledger.hold(claim()):
        pass
    assert await left(ledger) == 700


async def test_hold_that_is_released(ledger):
    """A released hold costs nothing."""
    async with ledger.hold(claim()) as hold:
        hold.release()
    assert await left(ledger) == 1_000


async def test_error_inside_a_hold(ledger, store):
    """What was charged before an error is booked all the same."""

    async def fail() -> None:
        async with ledger.hold(claim()) as hold:
            hold.charge(used(7, 0), 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await left(ledger) == 993
    assert await open_in_store(store) == 0


async def test_charge_beyond_the_hold(ledger):
    """A backend that used more than it was allowed is booked at what it used."""
    async with ledger.hold(claim(input_tokens=1, output_tokens=1)) as hold:
        hold.charge(used(600, 600), 0)
    assert await left(ledger) == 0
    with pytest.raises(BudgetSpent):
        await ledger.take(claim())


async def test_output_is_clamped_to_the_tightest_limit(ledger):
    """Tokens and money both bound the answer; what fits into all of them is granted, and no more is taken."""
    limits = (TOKENS, MONEY, Limit(amount=5_000, unit="tokens", per="day"))
    async with ledger.hold(claim(limits=limits, output_tokens=100_000, price=PRICE)) as hold:
        assert hold.output_tokens == 300  # (1,000,000 - 100 × 1,000) / 3,000; tokens would leave 900
        assert [entry.left for entry in hold.left] == [600, 0, 4_600]
        hold.release()


@pytest.mark.parametrize("output_nanousd", [1, 333_333, 999_999, 1_000_001, 75_500_000, 7_777_777_777])
async def test_clamp_by_money_is_exact(ledger, output_nanousd):
    """One token more would cost more than is left, at any price."""
    price = Price(input_nanousd=123_457, output_nanousd=output_nanousd, cached_input_nanousd=0)
    limit = Limit(amount=987_654, unit="nanousd", per="month")
    wanted = claim(limits=(limit,), price=price, output_tokens=10**9, input_tokens=1_000)
    async with ledger.hold(wanted) as hold:
        granted = hold.output_tokens
        hold.release()

    def cost(tokens: int) -> int:
        return wanted.fixed_nanousd + price.cost_nanousd(input_tokens=0, output_tokens=tokens)

    assert cost(granted) <= limit.amount
    assert granted == 10**9 or cost(granted + 1) > limit.amount


async def test_large_amounts_are_counted_exactly(ledger):
    """Nano-dollars stay exact up to the largest amount that a policy can name."""
    limit = Limit(amount=2**53 - 1, unit="nanousd", per="month")
    price = Price(input_nanousd=10**12, output_nanousd=10**12, cached_input_nanousd=0)  # $1,000 for 1M tokens
    async with ledger.hold(claim(limits=(limit,), price=price, output_tokens=10**30)) as hold:
        assert hold.output_tokens == 10**9
        hold.charge(used(1, 0), 4_000_000_000_000_001)
    assert await left(ledger, limit) == 2**53 - 1 - 4_000_000_000_000_001


async def test_spent_budget(ledger, store):
    """The refusal names tenant, limit and reset, tells SDKs not to retry, and takes nothing."""
    async with ledger.hold(claim(input_tokens=900, output_tokens=100)):
        with pytest.raises(BudgetSpent) as caught:
            await ledger.take(claim())
    message = caught.value.message
    assert "'acme'" in message
    assert "1,000 tokens per month" in message
    first = datetime.now(UTC).replace(day=1)
    assert f"{(first + timedelta(days=31)).replace(day=1):%Y-%m-%d} 00:00:00 UTC" in message
    assert caught.value.code == "insufficient_quota"
    assert caught.value.headers["x-should-retry"] == "false"
    assert caught.value.headers["x-ratelimit-remaining-tokens"] == "0"
    assert await open_in_store(store) == 0 or await left(ledger) == 0


async def test_all_or_none(ledger):
    """When one limit refuses, the others are as before."""
    small = Limit(amount=150, unit="tokens", per="day", feature="chat")
    with pytest.raises(BudgetSpent, match="per day for feature 'chat'"):
        await ledger.take(claim(limits=(TOKENS, small), feature="chat", min_output_tokens=100))
    assert await left(ledger) == 1_000


async def test_limits_of_other_features(ledger):
    """A limit of another feature neither refuses nor counts; the tenant's own counts for all features."""
    of_search = Limit(amount=100, unit="tokens", per="month", feature="search")
    async with ledger.hold(claim(limits=(TOKENS, of_search), feature="chat")) as hold:
        hold.charge(used(100, 100), 0)
    assert await left(ledger, of_search) == 100
    assert await left(ledger) == 800


async def test_tenants_are_apart(ledger, store):
    """No tenant spends another's budget, whatever their names look like; their keys stay in their own slots."""
    names = ["a", "a}:ledger", "{a}", "a:ledger", "", "ä\n", "a%7D", "\ud800"]
    for tenant in names:
        async with ledger.hold(claim(tenant=tenant, feature="\udcff" * 9_000)) as hold:
            hold.charge(used(100, 0), 0)
    for tenant in names:
        assert await left(ledger, tenant=tenant) == 900
    for tenant in names:
        if tenant:
            assert len({await store.command("CLUSTER", "KEYSLOT", key) for key in tenant_keys(tenant)}) == 1


async def test_same_request_id_twice(ledger):
    """Two requests that a client gave one id are two holds."""
    async with ledger.hold(claim()), ledger.hold(claim()):
        assert await left(ledger) == 400


async def test_claim_that_nothing_limits():
    """Without limits and rate the store is not asked, so that it need not even be there."""
    other = Limit(amount=1, unit="tokens", per="day", feature="other")
    async with Store("unix:///nowhere/at/all") as absent, Ledger(absent) as ledger:
        for limits in ((), (other,)):
            async with ledger.hold(claim(limits=limits, rate=Rate())) as hold:
                assert hold.output_tokens == 200
                assert hold.headers == {}
        assert not ledger._settler._queue


async def test_same_script_twice(ledger, store):
    """A hold that is sent twice with one id is taken once, and settled once."""
    terms = ledger._terms("acme", (TOKENS,), "")
    first = await ledger._run_hold(claim(), terms, "one", 1)
    again = await ledger._run_hold(claim(output_tokens=900), terms, "one", 1)
    assert (first.output_tokens, again.output_tokens) == (200, 200)
    assert first.record == again.record
    assert await left(ledger) == 700
    words = pack((first.epoch, "one", 10, 0, 10, 0, 0, 0, first.epoch, first.seq, terms.fields))
    answers = [await store.script(ledger._scripts.settle, terms.keys, (RUN, words)) for _ in range(3)]
    assert [answer[0] for answer in answers] == [1, 0, 0]
    assert await left(ledger) == 990


# --- windows and rates ----------------------------------------------------------------------------------------


async def test_new_window(ledger, store):
    """A new window begins with nothing spent, whatever the last one came to."""
    last_month = window("month", "UTC", window("month", "UTC", int(time.time()))[0] - 1)[0]
    await store.command("HSET", tenant_keys("acme")[0], "tokens:month", f"{last_month} 999")
    assert await left(ledger) == 1_000
    async with ledger.hold(claim()):
        assert await left(ledger) == 700


async def test_settlement_in_a_later_window(ledger, store):
    """A hold is booked in the window in which it was taken; the next one's budget is not touched by it."""
    async with ledger.hold(claim()) as hold:
        next_month = f"{int(time.time()) + 40 * 86400} 300"  # as if it had begun, and others had spent 300 in it
        await store.command("HSET", tenant_keys("acme")[0], "tokens:month", next_month)
        hold.charge(used(1, 1), 0)
    assert await left(ledger) == 700


async def test_clock_that_went_back(ledger, store):
    """A server whose clock steps back opens no new window."""
    await store.command("HSET", tenant_keys("acme")[0], "tokens:month", f"{int(time.time()) + 90 * 86400} 950")
    assert await left(ledger) == 50
    async with ledger.hold(claim(input_tokens=10)) as hold:
        assert hold.output_tokens == 40
        hold.release()
    assert await left(ledger) == 50


async def test_rate_of_requests(ledger):
    """A burst up to the whole amount, then one request for each share of the time; the refusal says when."""
    limited = claim(limits=(), rate=Rate(requests=5, per_s=1.0))
    for remaining in (4, 3, 2, 1, 0):
        async with ledger.hold(limited) as hold:
            assert hold.headers["x-ratelimit-limit-requests"] == "5"
            assert int(hold.headers["x-ratelimit-remaining-requests"]) == remaining
    with pytest.raises(RateLimited) as caught:
        await ledger.take(limited)
    assert 0 < caught.value.retry_after_s <= 0.2
    assert "5 requests in 1 s" in caught.value.message
    await asyncio.sleep(caught.value.retry_after_s)
    async with ledger.hold(limited):
        pass


async def test_rate_of_tokens(ledger):
    """Tokens that were held and not used are given back to the rate."""
    limited = claim(limits=(), rate=Rate(tokens=1_000, per_s=3600.0))
    for _ in range(20):
        async with ledger.hold(limited) as hold:
            hold.charge(used(10, 10), 0)
        await ledger._settler.flush(2.0)
    async with ledger.hold(claim(limits=(), rate=limited.rate, output_tokens=490)):  # 400 + 590 of 1,000
        with pytest.raises(RateLimited) as caught:
            await ledger.take(limited)
    assert caught.value.retry_after_s == pytest.approx((400 + 590 + 300 - 1_000) * 3.6, rel=0.02)


async def test_rate_gives_back_only_what_has_not_drained(ledger):
    """A hold released long after it was taken gives the rate no second burst."""
    limited = claim(limits=(), rate=Rate(tokens=300, per_s=0.3))
    async with ledger.hold(limited) as hold:
        await asyncio.sleep(0.31)
        async with ledger.hold(limited):
            hold.release()
            ledger.end(hold)
            await ledger._settler.flush(2.0)
            with pytest.raises(RateLimited):
                await ledger.take(limited)


async def test_request_that_is_larger_than_the_rate(ledger):
    """It is clamped to the whole rate; if even its input is too large, no waiting time is named."""
    rate = Rate(tokens=150, per_s=3600.0)
    async with ledger.hold(claim(limits=(), rate=rate)) as hold:
        assert hold.output_tokens == 50
        hold.release()
    with pytest.raises(RateLimited, match="shorter") as caught:
        await ledger.take(claim(limits=(), rate=rate, input_tokens=150))
    assert caught.value.retry_after_s is None


async def test_spent_budget_takes_nothing_from_the_rate(ledger):
    """All or none holds for rates as well."""
    rate = Rate(requests=2, per_s=3600.0)
    for _ in range(3):
        with pytest.raises(BudgetSpent):
            await ledger.take(claim(rate=rate, input_tokens=2_000))
    async with ledger.hold(claim(rate=rate)) as hold:
        assert hold.headers["x-ratelimit-remaining-requests"] == "1"


async def test_headers_of_a_budget(ledger):
    """Without a rate, the tightest token budget speaks; money does not show itself as tokens."""
    limits = (TOKENS, Limit(amount=500, unit="tokens", per="day"), MONEY)
    async with ledger.hold(claim(limits=limits)) as hold:
        assert hold.headers["x-ratelimit-limit-tokens"] == "500"
        assert hold.headers["x-ratelimit-remaining-tokens"] == "200"
        assert "x-ratelimit-limit-requests" not in hold.headers
    async with ledger.hold(claim(limits=(MONEY,))) as hold:
        assert hold.headers == {}


async def test_share_left(ledger):
    """The share is the last known one of the tightest limit that applies; unknown is everything."""
    of_chat = Limit(amount=400, unit="tokens", per="month", feature="chat")
    assert ledger.share_left("acme") == 1.0
    async with ledger.hold(claim(limits=(TOKENS, of_chat), feature="chat")):
        assert ledger.share_left("acme") == 0.7
        assert ledger.share_left("acme", "chat") == 0.25
        assert ledger.share_left("other") == 1.0


# --- many at once ---------------------------------------------------------------------------------------------


async def test_many_at_once_never_overspend(valkey_url, store):
    """32 holders in 4 gateways on one small budget: never more is held than there is, and what was used is booked."""
    holding, most, booked, refused = 0, 0, 0, 0

    async def work(ledger: Ledger, seed: int) -> None:
        nonlocal holding, most, booked, refused
        rng = random.Random(seed)
        for _ in range(15):
            try:
                async with ledger.hold(claim(input_tokens=20, output_tokens=rng.randrange(1, 60))) as hold:
                    holding += 20 + hold.output_tokens
                    most = max(most, holding + booked)
                    await asyncio.sleep(rng.random() * 0.005)
                    tokens = rng.randrange(0, hold.output_tokens + 1)
                    holding -= 20 + hold.output_tokens
                    booked += tokens
                    hold.charge(used(0, tokens), 0)
            except BudgetSpent:
                refused += 1

    async with AsyncExitStack() as gateways:
        stores = [await gateways.enter_async_context(Store(valkey_url, timeout_s=2.0)) for _ in range(4)]
        ledgers = [await gateways.enter_async_context(Ledger(opened)) for opened in stores]
        await asyncio.gather(*(work(ledgers[seed % 4], seed) for seed in range(32)))
    assert refused > 0
    assert most <= TOKENS.amount
    assert booked <= TOKENS.amount
    async with Ledger(store) as ledger:
        assert await left(ledger) == TOKENS.amount - booked
    assert await open_in_store(store) == 0
    assert sum(int(entry["tokens"]) for entry in await usage_log(store)) == booked


async def test_next_request_after_one_that_used_little(ledger):
    """A tenant that waits for one answer before it asks again is not refused for what it did not use."""
    for _ in range(30):
        async with ledger.hold(claim(input_tokens=500, output_tokens=450)) as hold:
            assert hold.output_tokens == 450
            hold.charge(used(0, 1), 0)


# --- what ends in the middle ----------------------------------------------------------------------------------


async def test_request_that_is_cancelled(ledger, store):
    """A cancelled task's hold is settled, at what was charged until then."""

    async def serve(started: asyncio.Event) -> None:
        async with ledger.hold(claim()) as hold:
            hold.charge(used(30, 0), 0)
            started.set()
            await asyncio.sleep(60)

    started = asyncio.Event()
    task = asyncio.create_task(serve(started))
    await started.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert await left(ledger) == 970
    assert await open_in_store(store) == 0


async def test_requests_cancelled_while_they_ask(ledger, store):
    """A task that is cancelled before it has its hold leaves nothing held, whether the store had heard of it or not."""
    for turn in range(40):
        tasks = [asyncio.create_task(ledger.take(claim(output_tokens=1))) for _ in range(8)]
        await asyncio.sleep(turn * 0.00005)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and task.exception() is None:
                task.result().release()
                ledger.end(task.result())
        await ledger._settler.flush(2.0)
    assert await left(ledger) == 1_000
    assert await open_in_store(store) == 0


async def test_hold_that_arrives_after_it_was_given_up(ledger, store):
    """A hold that a slow connection delivers after its cancellation takes nothing."""
    terms = ledger._terms("acme", (TOKENS,), "")
    await store.script(*GivingUp("late", terms, ledger._scripts).call())
    reply = await ledger._run_hold(claim(), terms, "late", 1)
    assert reply.what == CLOSED
    assert await left(ledger) == 1_000


async def test_gateway_that_ends(store):
    """A ledger that closes books what its holds say, and what they reserved where they say nothing."""
    async with Ledger(store) as ledger:
        charged = await ledger.take(claim())
        charged.charge(used(1, 1), 0)
        await ledger.take(claim())
        assert ledger.open_holds == 2
    async with Ledger(store) as ledger:
        assert await left(ledger) == 1_000 - 2 - 300
    assert await open_in_store(store) == 0


async def test_gateway_that_dies(store):
    """A dead gateway's holds are booked at what they reserved when their leases end, by any other's reaper.

    Also by one that never heard of the tenant, and however soon it died.
    """
    dead = Ledger(store, lease_s=0.2)  # never entered: it renews and settles nothing
    hold = await dead.take(claim())
    async with Ledger(store, lease_s=0.2) as ledger:
        await until(lambda: nobody_holds(store))
        assert await left(ledger) == 700
        assert [entry["how"] for entry in await usage_log(store)] == ["expired"]
        # Should it come back after all: too late.
        hold.release()
        dead.end(hold)
        task = asyncio.create_task(dead._settler.run())
        await dead._settler.flush(2.0)
        task.cancel()
        assert await left(ledger) == 700


async def nobody_holds(store: Store) -> bool:
    return await open_in_store(store) == 0


async def test_long_request(store):
    """A hold outlives its lease as long as its gateway lives, and is then booked at its charge."""
    async with Ledger(store, lease_s=0.15) as ledger:
        async with ledger.hold(claim()) as hold:
            await asyncio.sleep(0.6)
            assert await open_in_store(store) == 1
            hold.charge(used(1, 1), 0)
        assert await left(ledger) == 998


@pytest.mark.parametrize("renewed", [False, True])
async def test_store_that_was_emptied(store, renewed):
    """What a running hold knows is put back into a store that lost everything: held first, then booked, once."""
    async with Ledger(store, lease_s=0.3 if renewed else 60) as ledger:
        async with ledger.hold(claim()) as hold:
            await store.command("FLUSHALL")
            if renewed:
                await until(lambda: is_held(store))
                assert await left(ledger) == 700
            hold.charge(used(10, 10), 0)
        assert await left(ledger) == 980
        async with ledger.hold(claim()) as hold:
            hold.charge(used(10, 10), 0)
        assert await left(ledger) == 960


async def test_renewal_that_arrives_after_the_settlement(ledger, store):
    """In a store that was emptied, putting back a hold does not bring back what was booked."""
    hold = await ledger.take(claim())
    entry = ledger._leases._open[hold.id]
    epoch, seq = entry.epoch, entry.seq
    await store.command("FLUSHALL")
    hold.charge(used(10, 10), 0)
    ledger.end(hold)
    assert await left(ledger) == 980
    words = pack((ledger._memory.of("acme").epoch, 60_000, (hold.id, epoch, seq)))
    answer = await store.script(ledger._scripts.putback, entry.terms.keys, (RUN, words, entry.record))
    assert answer == [1, 0]
    assert await left(ledger) == 980


async def is_held(store: Store) -> bool:
    return await open_in_store(store) == 1


async def test_store_that_is_killed(tmp_path):
    """A killed store costs those who ask meanwhile an error; afterwards every charge is booked once.

    Where the store forgot a hold while it was being settled, at what it reserved: rather too much than too little.
    """
    async with EmbeddedValkey(tmp_path) as server, Store(server.url, timeout_s=2.0) as store, Ledger(store) as ledger:
        booked = 0
        for turn in range(60):
            if turn % 20 == 10:
                await kill_when_up(server)
            try:
                async with ledger.hold(claim(input_tokens=1, output_tokens=1)) as hold:
                    if turn % 20 == 0:
                        await kill_when_up(server)
                    hold.charge(used(1, 0), 0)
                    booked += 1
            except StoreUnavailable:
                await asyncio.sleep(0.02)
        await until(lambda: settled(ledger))
        assert 0 < booked <= 60
        in_doubt = sum(entry["how"] == "restored" for entry in await usage_log(store))
        assert 1_000 - booked - in_doubt <= await left(ledger) <= 1_000 - booked
        assert in_doubt <= 5
        assert await open_in_store(store) == 0


async def kill_when_up(server: EmbeddedValkey) -> None:
    """It may still be on its way up from the last time."""

    async def killed() -> bool:
        if server.pid is None:
            return False
        try:
            os.kill(server.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    await until(killed)


async def settled(ledger: Ledger) -> bool:
    await ledger._settler.flush(0.05)
    return ledger._settler.waiting("acme") == 0


async def test_store_that_freezes(tmp_path):
    """Fail closed: a frozen store refuses within its time limit, and keeps nothing of what was refused."""
    async with EmbeddedValkey(tmp_path) as server, Store(server.url, timeout_s=0.1) as store, Ledger(store) as ledger:
        await ledger.take(claim())
        os.kill(server.pid, signal.SIGSTOP)
        started = time.perf_counter()
        refused = await asyncio.gather(*(ledger.take(claim(output_tokens=1)) for _ in range(5)), return_exceptions=True)
        assert time.perf_counter() - started < 1.0
        assert {type(error) for error in refused} == {StoreUnavailable}
        assert "acme" in refused[0].message
        assert str(tmp_path) not in refused[0].message
        os.kill(server.pid, signal.SIGCONT)
        await until(lambda: settled(ledger))
        assert await left(ledger) == 700
        assert await open_in_store(store) == 1


async def test_fail_open(tmp_path):
    """Fail open: a twentieth of each limit is granted without the store, counted, and reported once when it is back."""
    limits = (Limit(amount=10_000, unit="tokens", per="month"),)
    opened = claim(limits=limits, fail="open", input_tokens=50, output_tokens=1_000)
    async with EmbeddedValkey(tmp_path) as server, Store(server.url, timeout_s=0.1) as store, Ledger(store) as ledger:
        os.kill(server.pid, signal.SIGSTOP)
        async with ledger.hold(opened) as hold:
            assert hold.output_tokens == 450
            assert hold.is_limited
            with pytest.raises(StoreUnavailable, match="5% of each limit"):
                await ledger.take(opened)
            hold.charge(used(50, 100), 0)
        async with ledger.hold(opened) as hold:  # 500 - 150 of the allowance are left
            assert hold.output_tokens == 300
            hold.release()
        os.kill(server.pid, signal.SIGCONT)
        await until(lambda: settled(ledger))
        assert await left(ledger, limits[0]) == 10_000 - 150
        assert ledger._allowance.used("acme", limits[0]) == 0
        assert [entry["how"] for entry in await usage_log(store) if entry["tokens"] != "0"] == ["open"]


async def test_store_that_goes_again_and_again(tmp_path):
    """Fail open: a budget that is spent gives its allowance once, not with each outage."""
    limits = (Limit(amount=10_000, unit="tokens", per="month"),)
    opened = claim(limits=limits, fail="open", input_tokens=50, output_tokens=1_000)
    async with EmbeddedValkey(tmp_path) as server, Store(server.url, timeout_s=0.1) as store, Ledger(store) as ledger:
        async with ledger.hold(opened) as hold:
            hold.charge(used(10_000, 0), 0)
        await until(lambda: settled(ledger))
        granted = 0
        for _ in range(4):
            os.kill(server.pid, signal.SIGSTOP)
            try:
                async with ledger.hold(opened) as hold:
                    granted += 50 + hold.output_tokens
            except StoreUnavailable:
                pass
            os.kill(server.pid, signal.SIGCONT)
            await until(lambda: answers(store))
            await until(lambda: settled(ledger))
        assert granted == 500


async def answers(store: Store) -> bool:
    try:
        await store.ping()
    except StoreUnavailable:
        return False
    return store.healthy


async def test_settlement_that_the_server_refuses(ledger, store, monkeypatch):
    """It is tried a few times and given up, and does not stand in the way of others."""
    monkeypatch.setattr("gateway.budgets.settler._PAUSE_FIRST_S", 0.001)
    monkeypatch.setattr("gateway.budgets.settler._PAUSE_LAST_S", 0.001)
    async with ledger.hold(claim(tenant="broken")), ledger.hold(claim()) as hold:
        await store.command("DEL", tenant_keys("broken")[1])
        await store.command("SET", tenant_keys("broken")[1], "no hash")
        hold.charge(used(1, 0), 0)
    assert await left(ledger) == 999
    await until(lambda: dropped(ledger))
    assert ledger._settler.waiting("broken") == 0


async def dropped(ledger: Ledger) -> bool:
    return ledger._settler.dropped == 1


async def test_more_settlements_than_can_wait(monkeypatch):
    """While the store is gone a bounded number waits; the oldest are given up."""
    monkeypatch.setattr("gateway.budgets.settler._MOST_WAITING", 3)
    monkeypatch.setattr("gateway.budgets.ledger._FLUSH_AT_EXIT_S", 0.05)
    async with Store("unix:///nowhere/at/all") as absent, Ledger(absent) as ledger:
        limits = (Limit(amount=10**6, unit="tokens", per="day"),)
        for _ in range(5):
            async with ledger.hold(claim(fail="open", limits=limits)) as hold:
                hold.charge(used(1, 0), 0)
        assert ledger._settler.waiting("acme") == 3
        assert ledger._settler.dropped == 2


@pytest.mark.parametrize("eviction", ["noeviction", "volatile-lru"])
async def test_full_memory(store, ledger, eviction):
    """A store whose memory is full settles and grants; only caches have to wait."""
    async with ledger.hold(claim()) as hold:
        await store.command("CONFIG", "SET", "maxmemory-policy", eviction)
        await store.command("CONFIG", "SET", "maxmemory", "1mb")
        try:
            with pytest.raises(StoreUnavailable, match="refused"):
                await store.set("fd1:cache:x", b"x", ttl_s=10)
            assert store.healthy
            async with ledger.hold(claim()) as other:
                other.release()
            hold.charge(used(1, 0), 0)
            assert await left(ledger) == 700
        finally:
            await store.command("CONFIG", "SET", "maxmemory", "256mb")
            await store.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    assert await left(ledger) == 999
