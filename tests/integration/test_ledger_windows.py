"""Windows, keys, warnings and larger holds, on a real Valkey."""

import itertools
import time

import msgspec
import pytest
import structlog

from gateway.budgets.claim import Charge, Claim
from gateway.budgets.ledger import Ledger
from gateway.budgets.limit import Limit
from gateway.budgets.terms import tenant_keys
from gateway.budgets.windows import window
from gateway.errors import BudgetSpent
from gateway.inference.deployment import FREE
from gateway.inference.usage import Usage
from gateway.store.client import Store

pytestmark = pytest.mark.store

DAY = Limit(amount=1_000, unit="tokens", per="day", zone="Pacific/Auckland")
ROLLING = Limit(amount=1_000, unit="tokens", per="rolling 24h", rolling_s=86_400)
MONEY = Limit(amount=1_000_000, unit="nanousd", per="month")


def claim(**changes) -> Claim:
    defaults = {
        "id": "r",
        "tenant": "acme",
        "feature": "",
        "limits": (DAY,),
        "rate": None,
        "input_tokens": 100,
        "output_tokens": 200,
        "price": FREE,
    }
    return Claim(**(defaults | changes))


@pytest.fixture
async def ledger(store):
    async with Ledger(store) as opened:
        yield opened


async def left(ledger: Ledger, limit: Limit) -> int:
    await ledger._settler.flush(2.0)
    return (await ledger.left("acme", (limit,)))[0].left


def needed(tokens: int, nanousd: int = 0) -> Charge:
    return Charge(tokens=tokens, nanousd=nanousd, input_tokens=0, output_tokens=0, estimated=True)


async def test_day_of_a_time_zone(ledger):
    """A tenant's day ends when its own calendar says."""
    async with ledger.hold(claim()) as hold:
        [entry] = hold.left
        assert entry.resets_in_s == pytest.approx(window("day", DAY.zone, int(time.time()))[1] - time.time(), abs=2)


async def test_day_of_another_time_zone(ledger):
    """A policy that moves its tenant to another zone gives it no second day: what it has spent today stays spent."""
    now = int(time.time())
    zones = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland")
    starts = sorted((window("day", zone, now)[0], zone) for zone in zones)
    earlier, later = next(
        (one, other)
        for (start, one), (following, other) in itertools.pairwise(starts)
        if 0 < following - start < 0.7 * 86_400
    )
    for before, after in ((earlier, later), (later, earlier)):
        one, other = (msgspec.structs.replace(DAY, zone=zone) for zone in (before, after))
        spent = 1_000 - await left(ledger, one)
        async with ledger.hold(claim(limits=(one,))) as open_hold:
            async with ledger.hold(claim(limits=(one,))) as hold:
                hold.charge(Usage(input_tokens=250), 0)
            await ledger._settler.flush(2.0)
            async with ledger.hold(claim(limits=(other,))) as hold:
                assert hold.left[0].left == 1_000 - spent - 300 - 250 - 300 or hold.output_tokens < 200
                hold.release()
            open_hold.release()
        assert await left(ledger, other) == 1_000 - spent - 250


@pytest.mark.parametrize("skew_s", [-86_400 * 400, -3_600, 3_600, 86_400 * 400])
async def test_gateway_whose_clock_is_wrong(ledger, skew_s):
    """Windows are the store's: a gateway whose clock is off finds out, and books where all the others do."""
    async with ledger.hold(claim(limits=(DAY, MONEY))) as hold:
        hold.charge(Usage(input_tokens=100), 0)
    await ledger._settler.flush(2.0)
    ledger._clock._ahead_s += skew_s
    async with ledger.hold(claim(limits=(DAY, MONEY))) as hold:
        assert hold.left[0].left == 600
        hold.release()
    ledger._clock._ahead_s -= skew_s
    assert await left(ledger, DAY) == 900


async def test_clock_that_is_stepped_in_use(ledger, monkeypatch):
    """A step of the machine's clock is not even noticed: time goes on from the store's last word."""
    async with ledger.hold(claim()) as hold:
        hold.charge(Usage(input_tokens=100), 0)
    await ledger._settler.flush(2.0)
    stepped = time.time() + 86_400 * 40
    monkeypatch.setattr(time, "time", lambda: stepped)
    assert await left(ledger, DAY) == 900


async def test_rolling_window(ledger, store):
    """What was used in the time before now counts, in any part of it; what is older does not."""
    now, field = int(time.time()), "tokens:rolling-86400"
    parts = [now - 86_400 - 3_600 - 10, 500, now - 86_400 + 60, 300, now - 3_600, 100]
    await store.command("HSET", tenant_keys("acme")[0], field, msgspec.msgpack.encode(parts))
    assert await left(ledger, ROLLING) == 600
    async with ledger.hold(claim(limits=(ROLLING,), output_tokens=900)) as hold:
        assert hold.output_tokens == 500
        [entry] = hold.left
        assert entry.left == 0
        assert entry.resets_in_s == pytest.approx(3_600 + 60, abs=2)  # when its oldest part is gone
        with pytest.raises(BudgetSpent, match="1,000 tokens in 24h: 0 tokens left"):
            await ledger.take(claim(limits=(ROLLING,)))
        hold.charge(Usage(input_tokens=10), 0)
    assert await left(ledger, ROLLING) == 590


async def test_rolling_window_rolls(ledger):
    """What was used is free again after the window, and at most a part of it later."""
    short = Limit(amount=100, unit="tokens", per="rolling 2s", rolling_s=2)
    async with ledger.hold(claim(limits=(short,), input_tokens=50, output_tokens=50)):
        pass
    started = time.monotonic()
    while await left(ledger, short) == 0:
        assert time.monotonic() - started < 3.5
    assert time.monotonic() - started > 1.5
    assert await left(ledger, short) == 100


async def test_limit_of_a_key(ledger):
    """A key's limit counts what that key spends, beside the tenant's own."""
    of_key = Limit(amount=250, unit="tokens", per="day", key="prod")
    limits = (DAY, of_key)
    async with ledger.hold(claim(limits=limits, key="prod")) as hold:
        assert hold.output_tokens == 150
        hold.charge(Usage(input_tokens=250), 0)
    await ledger._settler.flush(2.0)
    with pytest.raises(BudgetSpent, match="per day for key 'prod'"):
        await ledger.take(claim(limits=limits, key="prod"))
    async with ledger.hold(claim(limits=limits, key="test")) as hold:
        assert hold.output_tokens == 200
    assert await left(ledger, DAY) == 1_000 - 250 - 300


async def test_soft_limit(ledger):
    """From its share on the client is told by a header, and the log once for a window."""
    soft = Limit(amount=1_000, unit="tokens", per="day", warn_at=0.5)
    with structlog.testing.capture_logs() as logs:
        async with ledger.hold(claim(limits=(soft,))) as hold:
            assert not hold.warned
            assert "x-firstdraft-budget-warning" not in hold.headers
            for _ in range(2):
                async with ledger.hold(claim(limits=(soft,))) as second:
                    assert second.headers["x-firstdraft-budget-warning"] == "60% of 1,000 tokens per day"
                    second.release()
                await ledger._settler.flush(2.0)
    assert [line["used"] for line in logs if line["event"] == "budget_warning"] == ["60% of 1,000 tokens per day"]


async def test_larger_hold(ledger):
    """What a dearer target needs is taken from all limits, or from none; less than what is held changes nothing."""
    limits = (DAY, MONEY)
    async with ledger.hold(claim(limits=limits)) as hold:
        assert await ledger.extend(hold, needed(300, 600_000))
        assert (await left(ledger, DAY), await left(ledger, MONEY)) == (700, 400_000)
        assert await ledger.extend(hold, needed(100, 1))
        assert not await ledger.extend(hold, needed(1_001, 600_000))
        assert not await ledger.extend(hold, needed(400, 1_000_001))
        assert (await left(ledger, DAY), await left(ledger, MONEY)) == (700, 400_000)
        assert hold.charged.nanousd == 600_000
    assert (await left(ledger, DAY), await left(ledger, MONEY)) == (700, 400_000)


async def test_larger_hold_is_booked_at_its_charge(ledger):
    """However large it became, what was used is what is booked."""
    async with ledger.hold(claim(limits=(ROLLING,))) as hold:
        assert await ledger.extend(hold, needed(900))
        hold.charge(Usage(input_tokens=10), 0)
    assert await left(ledger, ROLLING) == 990


async def test_larger_hold_without_the_store():
    """While the store is gone only the local allowance can give more."""
    wide = Limit(amount=10_000, unit="tokens", per="day")
    async with Store("unix:///nowhere/at/all") as absent, Ledger(absent) as ledger:
        hold = await ledger.take(claim(limits=(wide,), fail="open"))
        assert await ledger.extend(hold, needed(500))
        assert not await ledger.extend(hold, needed(501))
        hold.release()
        ledger.end(hold)
        assert ledger._allowance.used("acme", wide) == 0
        ledger._settler._queue.clear()
        ledger._settler._idle.set()
