"""The ledger, on a real Valkey, against a model that is small enough to be seen to be right."""

import asyncio
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from gateway.budgets.claim import Claim, Hold
from gateway.budgets.ledger import Ledger
from gateway.budgets.limit import Limit, Rate
from gateway.budgets.settlements import Settling
from gateway.budgets.terms import tenant_keys
from gateway.errors import BudgetSpent, RateLimited
from gateway.inference.deployment import Price
from gateway.inference.usage import Usage
from gateway.store.client import Store

pytestmark = pytest.mark.store

TENANTS = itertools.count()
FOREVER_S = 1e9
"""A rate over so long a time does not drain while a test runs."""


@dataclass
class Model:
    """One tenant's books: what each limit and rate has left, and what open holds took from them."""

    limits: tuple[Limit, ...]
    rate: Rate
    spent: dict[Limit, int] = field(default_factory=dict)
    requests: int = 0
    tokens: int = 0
    open: dict[int, tuple[Claim, int]] = field(default_factory=dict)

    def hold(self, slot: int, claim: Claim) -> int | str:
        """Output tokens, or `budget` or `rate`."""
        limits = self._applying(claim)
        output = claim.output_tokens
        while output >= claim.min_output_tokens and not all(
            self.spent.get(limit, 0) + amount(limit, claim, output) <= limit.amount for limit in limits
        ):
            output -= 1
        if output < claim.min_output_tokens:
            return "budget"
        output = min(output, self.rate.tokens - claim.input_tokens)
        tokens = claim.input_tokens + output
        if (
            output < claim.min_output_tokens
            or self.requests + 1 > self.rate.requests
            or self.tokens + tokens > self.rate.tokens
        ):
            return "rate"
        self.requests += 1
        self.tokens += tokens
        for limit in limits:
            self.spent[limit] = self.spent.get(limit, 0) + amount(limit, claim, output)
        self.open[slot] = (claim, output)
        return output

    def extend(self, slot: int, output: int) -> bool:
        """Hold `output` more tokens, and what they cost; True if every limit has room for that.

        The rate refuses none of it, for the request runs already, but counts it. Without a limit nothing is asked.
        """
        claim, held = self.open[slot]
        limits = self._applying(claim)
        if not limits:
            return True
        more = {limit: amount(limit, claim, held + output) - amount(limit, claim, held) for limit in limits}
        if any(self.spent[limit] + more[limit] > limit.amount for limit in limits):
            return False
        for limit in limits:
            self.spent[limit] += more[limit]
        self.tokens += output
        self.open[slot] = (claim, held + output)
        return True

    def forget_rates(self) -> None:
        """The store lost everything: budgets are told it again, rates begin anew."""
        self.requests = self.tokens = 0

    def settle(self, slot: int, tokens: int, nanousd: int) -> None:
        claim, output = self.open.pop(slot)
        for limit in self._applying(claim):
            charged = tokens if limit.unit == "tokens" else nanousd
            self.spent[limit] += charged - amount(limit, claim, output)
        self.tokens = max(0, self.tokens - max(0, claim.input_tokens + output - tokens))

    def _applying(self, claim: Claim) -> list[Limit]:
        of_feature = [limit for limit in self.limits if limit.feature in (None, claim.feature)]
        return [limit for limit in of_feature if limit.key in (None, claim.key)]


def amount(limit: Limit, claim: Claim, output: int) -> int:
    if limit.unit == "tokens":
        return claim.input_tokens + output
    price = claim.price
    return price.cost_nanousd(input_tokens=claim.input_tokens, output_tokens=0) + price.cost_nanousd(
        input_tokens=0, output_tokens=output
    )


LIMITS = st.lists(
    st.builds(
        Limit,
        amount=st.integers(1, 400),
        unit=st.sampled_from(["tokens", "nanousd"]),
        per=st.sampled_from(["week", "month", "rolling 24h"]),
        feature=st.sampled_from([None, "chat", "search"]),
        key=st.sampled_from([None, None, "prod"]),
        zone=st.sampled_from(["UTC", "Pacific/Auckland"]),
    ).map(lambda limit: structs.replace(limit, rolling_s=86_400 if limit.per == "rolling 24h" else 0)),
    max_size=4,
    unique_by=lambda limit: limit.same,
).map(tuple)
PRICES = st.builds(
    Price,
    input_nanousd=st.integers(0, 3_000_000),
    output_nanousd=st.integers(0, 3_000_000),
    cached_input_nanousd=st.just(0),
)
RATES = st.builds(
    Rate, requests=st.integers(1, 12), tokens=st.integers(1, 600) | st.just(10**6), per_s=st.just(FOREVER_S)
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hold", "hold", "hold", "extend", "settle", "expire", "lose"]),
        st.integers(0, 3),  # which hold
        st.sampled_from(["", "chat", "search"]),
        st.sampled_from(["prod", "test"]),
        st.integers(0, 60),  # input tokens; of a settlement: tokens used, of those that were held
        st.integers(1, 80),  # output tokens
        st.integers(1, 5),  # fewest output tokens
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits=LIMITS, rate=RATES, price=PRICES, steps=STEPS)
@example(
    limits=(Limit(amount=1, unit="nanousd", per="week"),),
    rate=Rate(requests=9, tokens=100, per_s=FOREVER_S),
    price=Price(input_nanousd=0, output_nanousd=0, cached_input_nanousd=0),
    steps=[("hold", 1, "", "prod", 0, 40, 1), ("extend", 1, "", "prod", 50, 1, 1), ("hold", 0, "", "prod", 0, 40, 1)],
)
def test_ledger_does_what_the_model_does(valkey_url, limits, rate, price, steps):
    """Any trace of holds, larger holds, settlements (each sent twice), dead gateways and lost data, as in the model."""
    asyncio.run(run_trace(valkey_url, Model(limits, rate), price, steps))


async def run_trace(url: str, model: Model, price: Price, steps) -> None:
    tenant = f"model-{next(TENANTS)}"
    holds: dict[int, Hold] = {}
    async with Store(url, timeout_s=2.0) as store, Ledger(store) as ledger:
        await store.command("DEL", *tenant_keys(tenant))
        for what, slot, feature, key, first, second, fewest in steps:
            if what == "hold" and slot not in holds:
                claim = Claim(
                    id="r",
                    tenant=tenant,
                    feature=feature,
                    key=key,
                    limits=model.limits,
                    rate=model.rate,
                    input_tokens=first,
                    output_tokens=second,
                    min_output_tokens=min(fewest, second),
                    price=price,
                    fail="open",  # does not wait until other gateways could tell what they know
                )
                expected = model.hold(slot, claim)
                granted = await ask(ledger, claim)
                if isinstance(granted, Hold):
                    holds[slot] = granted
                assert (granted.output_tokens if isinstance(granted, Hold) else granted) == expected
            elif what == "settle" and slot in holds:
                await settle_twice(store, ledger, model, slot, holds.pop(slot), first)
            elif what == "extend" and slot in holds:
                await extend(ledger, model, slot, holds[slot], first)
            elif what == "lose":
                await store.command("DEL", *tenant_keys(tenant))
                await ledger._recall._look()
                model.forget_rates()
            elif what == "expire" and slot in holds:
                hold = holds.pop(slot)
                del model.open[slot]  # booked at what it reserved: nothing changes
                await store.command("ZADD", tenant_keys(tenant)[2], 1, hold.id)
            await compare(ledger, model, tenant)


async def ask(ledger: Ledger, claim: Claim) -> Hold | str:
    try:
        return await ledger.take(claim)
    except BudgetSpent:
        return "budget"
    except RateLimited:
        return "rate"


async def extend(ledger: Ledger, model: Model, slot: int, hold: Hold, output: int) -> None:
    claim, held = model.open[slot]
    money = amount(Limit(amount=1, unit="nanousd", per="day"), claim, held + output)
    needed = structs.replace(hold.reserved, tokens=claim.input_tokens + held + output, nanousd=money)
    # Where nothing limits the claim, nothing is held that could be too small.
    assert await ledger.extend(hold, needed) == model.extend(slot, output)


async def settle_twice(store: Store, ledger: Ledger, model: Model, slot: int, hold: Hold, share: int) -> None:
    claim, output = model.open[slot]
    tokens = (claim.input_tokens + output) * share // 60
    nanousd = amount(Limit(amount=1, unit="nanousd", per="day"), claim, output) * share // 60
    model.settle(slot, tokens, nanousd)
    hold.charge(Usage(input_tokens=tokens), nanousd)
    entry = ledger._leases._open[hold.id]
    ledger.end(hold)
    await ledger._settler.flush(2.0)
    answer = await store.script(*Settling(entry, ledger._memory, ledger._scripts).call())
    assert answer[0] == 0


async def compare(ledger: Ledger, model: Model, tenant: str) -> None:
    found = await ledger.left(tenant, model.limits)
    assert {entry.limit: entry.left for entry in found} == {
        limit: limit.amount - model.spent.get(limit, 0) for limit in model.limits
    }
    assert all(0 <= entry.left <= entry.limit.amount for entry in found)
