"""The ledger against a model of it in a few lines of Python: any trace, on each kind of store, comes out as it says.

There is no ledger in memory: without `--redis-url` the gateway starts the embedded Valkey, so that one machine and many
run the same scripts. What is compared on one trace is therefore the embedded server, one over TCP, and a Cluster; a
Sentinel pair is one server to the scripts.
"""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.budgets.books import Books
from gateway.budgets.claim import Beside, Charge, Claim, applying
from gateway.budgets.ledger import Ledger
from gateway.budgets.limit import Limit, Rate
from gateway.budgets.terms import tenant_keys
from gateway.errors import BudgetSpent, RateLimited
from gateway.inference.deployment import FREE, TOKENS_PER_PRICE, Price
from gateway.inference.usage import Usage
from gateway.store.client import Store
from tests.store_servers import Cluster, Server, free_ports

pytestmark = pytest.mark.store

LIMITS = (
    Limit(amount=1_000, unit="tokens", per="month"),
    Limit(amount=1_500, unit="tokens", per="month"),  # of two that measure the same the smaller one is the limit
    Limit(amount=2_000_000, unit="nanousd", per="month", zone="Pacific/Auckland"),
    Limit(amount=400, unit="tokens", per="week", feature="chat"),
    Limit(amount=700, unit="tokens", per="rolling 24h", rolling_s=86_400, key="prod"),
)
RATE = Rate(requests=9, tokens=600, per_s=1e12)
"""In the seconds of a test nothing of it drains."""
PRICES = (
    FREE,
    Price(input_nanousd=1_000_000_000, output_nanousd=3_333_333_333, cached_input_nanousd=0),
    Price(input_nanousd=123_457, output_nanousd=75_500_000_123, cached_input_nanousd=0),
)
GATEWAYS = 2


class Model:
    """What a tenant has spent and holds: amounts by limit, levels of its rate, and nothing else."""

    def __init__(self) -> None:
        self.spent: Counter[tuple] = Counter()
        self.requests = self.tokens = 0
        self.holds: dict[int, tuple[Claim, int, int]] = {}
        """Claim, tokens and nano-dollars by the number of their take."""

    def take(self, number: int, claim: Claim) -> tuple[str, int]:
        limits = applying(claim.limits, claim.feature, claim.key)
        output = min([claim.output_tokens, *(self._fitting(claim, limit) for limit in limits)])
        if output < claim.min_output_tokens:
            return "spent", 0
        if claim.rate is not None:
            output = min(output, claim.rate.tokens - claim.fixed_tokens)
            if output < claim.min_output_tokens:
                return "too large", 0
            wanted = claim.fixed_tokens + output
            if self.requests + 1 > claim.rate.requests or self.tokens + wanted > claim.rate.tokens:
                return "rate", 0
            self.requests += 1
        self.holds[number] = (claim, 0, 0)
        self._change(number, claim.fixed_tokens + output, claim.fixed_nanousd + _cost(output, claim.price))
        return "held", output

    def extend(self, number: int, tokens: int, nanousd: int) -> bool:
        claim, before_tokens, before_nanousd = self.holds[number]
        tokens, nanousd = max(tokens, before_tokens), max(nanousd, before_nanousd)
        for limit in applying(claim.limits, claim.feature, claim.key):
            more = tokens - before_tokens if limit.unit == "tokens" else nanousd - before_nanousd
            if more and self.spent[limit.same] + more > limit.amount:
                return False
        self._change(number, tokens, nanousd)
        return True

    def end(self, number: int, charged: tuple[int, int] | None) -> None:
        if charged is not None:
            self._change(number, *charged)
        del self.holds[number]

    def state(self) -> list[int]:
        """What each limit leaves, and the levels of the rate."""
        left = [max(0, limit.amount - self.spent[limit.same]) for limit in LIMITS if limit is not LIMITS[1]]
        return [*left, self.requests, self.tokens]

    def _fitting(self, claim: Claim, limit: Limit) -> int:
        room = limit.amount - self.spent[limit.same]
        if limit.unit == "tokens":
            return room - claim.fixed_tokens
        money = room - claim.fixed_nanousd
        fits = [tokens for tokens in range(claim.output_tokens + 1) if _cost(tokens, claim.price) <= money]
        return max(fits, default=-1)

    def _change(self, number: int, tokens: int, nanousd: int) -> None:
        claim, before_tokens, before_nanousd = self.holds[number]
        for limit in applying(claim.limits, claim.feature, claim.key):
            more = tokens - before_tokens if limit.unit == "tokens" else nanousd - before_nanousd
            self.spent[limit.same] = max(0, self.spent[limit.same] + more)
        if claim.rate is not None:
            self.tokens = max(0, self.tokens + tokens - before_tokens)
        self.holds[number] = (claim, tokens, nanousd)


def _cost(tokens: int, price: Price) -> int:
    return -(-tokens * price.output_worst_nanousd // TOKENS_PER_PRICE)


class Gateways:
    """Two gateways on one store, and the holds that they have."""

    def __init__(self, url: str, tenant: str, stack: AsyncExitStack) -> None:
        self.url, self.tenant, self.stack = url, tenant, stack
        self.ledgers: list[Ledger] = []
        self.holds: dict[int, tuple[Ledger, object]] = {}

    async def start(self) -> None:
        self.store = await self.stack.enter_async_context(Store(self.url, timeout_s=5.0))
        for _ in range(GATEWAYS):
            self.ledgers.append(await self.stack.enter_async_context(Ledger(self.store)))

    async def take(self, number: int, gateway: int, claim: Claim) -> tuple[str, int]:
        ledger = self.ledgers[gateway]
        try:
            hold = await ledger.take(claim)
        except BudgetSpent:
            return "spent", 0
        except RateLimited as refusal:
            return ("too large" if refusal.retry_after_s is None else "rate"), 0
        self.holds[number] = (ledger, hold)
        return "held", hold.output_tokens

    async def extend(self, number: int, tokens: int, nanousd: int) -> bool:
        ledger, hold = self.holds[number]
        needed = Charge(tokens=tokens, nanousd=nanousd, input_tokens=0, output_tokens=0, estimated=True)
        return await ledger.extend(hold, needed)

    async def end(self, number: int, charged: tuple[int, int] | None, *, twice: bool) -> None:
        ledger, hold = self.holds.pop(number)
        if charged is not None:
            hold.charge(Usage(input_tokens=0, output_tokens=charged[0]), charged[1])
        for _ in range(1 + twice):
            ledger.end(hold)
        await ledger._settler.flush(10.0)

    async def state(self) -> list[int]:
        left = await self.ledgers[0].left(self.tenant, LIMITS[:1] + LIMITS[2:])
        levels = await self.store.command("HMGET", tenant_keys(self.tenant)[0], "rate:requests", "rate:tokens")
        return [*(entry.left for entry in left), *(round(float((text or b"0").split()[0])) for text in levels)]

    async def drift(self) -> list[tuple[str, int, int]]:
        """Counters that are not what the usage log and the open holds add up to."""
        counters = await Books(self.store).counters(self.tenant)
        return [(each.field, each.spent, each.rebuilt) for each in counters if each.spent != each.rebuilt]


TAKES = st.fixed_dictionaries(
    {
        "feature": st.sampled_from(["", "chat"]),
        "key": st.sampled_from(["", "prod"]),
        "input_tokens": st.integers(0, 250),
        "output_tokens": st.integers(1, 500),
        "min_output_tokens": st.sampled_from([1, 1, 40]),
        "price": st.sampled_from(PRICES),
        "beside": st.sampled_from([None, None, Beside(30, 40_000)]),
        "rate": st.sampled_from([None, RATE]),
    }
)
MOST = st.integers(0, 1_300)
MONEY = st.integers(0, 2_500_000)
TRACES = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, GATEWAYS - 1), TAKES),
        st.tuples(st.just("take"), st.integers(0, GATEWAYS - 1), TAKES),
        st.tuples(st.just("extend"), st.integers(0, 50), MOST, MONEY),
        st.tuples(st.just("end"), st.integers(0, 50), st.none() | st.tuples(MOST, MONEY), st.booleans()),
    ),
    max_size=25,
)


async def replay(trace: list[tuple], urls: list[str], tenant: str) -> None:
    """Do the same everywhere, and hold what each says against the model, step by step."""
    model, limits = Model(), LIMITS
    async with AsyncExitStack() as stack:
        places = [Gateways(url, tenant, stack) for url in urls]
        await asyncio.gather(*(place.start() for place in places))
        for number, (what, which, *rest) in enumerate(trace):
            if what == "take":
                wanted = rest[0] | {"output_tokens": max(rest[0]["output_tokens"], rest[0]["min_output_tokens"])}
                claim = Claim(id=f"r{number}", tenant=tenant, limits=limits, **wanted)
                told = await asyncio.gather(*(place.take(number, which, claim) for place in places))
                assert told == [model.take(number, claim)] * len(places), (number, claim)
            elif model.holds:
                hold = sorted(model.holds)[which % len(model.holds)]
                if what == "extend":
                    told = await asyncio.gather(*(place.extend(hold, *rest) for place in places))
                    assert told == [model.extend(hold, *rest)] * len(places), (number, rest)
                else:
                    model.end(hold, rest[0])
                    await asyncio.gather(*(place.end(hold, rest[0], twice=rest[1]) for place in places))
            for place in places:
                assert await place.state() == model.state(), (number, place.url)
        for place in places:
            assert await place.drift() == [], place.url


def test_any_trace_on_any_store_comes_out_as_the_model_says(tmp_path, valkey_url):
    """Holds, refusals, clamps, extensions, charges and what is left are the model's; the log explains the counters."""
    examples = 0

    async def start(stack: AsyncExitStack) -> list[str]:
        server = await stack.enter_async_context(Server(tmp_path / "server", free_ports(1)[0]))
        cluster = await stack.enter_async_context(Cluster(tmp_path / "cluster"))
        return [valkey_url, server.url, cluster.url]

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        urls = runner.run(start(stack))
        try:

            @settings(max_examples=80, deadline=None)
            @given(trace=TRACES)
            def check(trace: list[tuple]) -> None:
                nonlocal examples
                examples += 1
                runner.run(replay(trace, urls, f"tenant-{tmp_path.name}-{examples}"))

            check()
        finally:
            runner.run(stack.aclose())
    assert examples >= 80
