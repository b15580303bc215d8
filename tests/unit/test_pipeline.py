"""The order of things: cache before budget, settled whatever happens, only whole answers kept."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace

import msgspec
import pytest

from gateway.budgets.claim import Hold, Left, worst_case
from gateway.budgets.limit import Limit
from gateway.cache.control import CacheControl, parse
from gateway.cache.flights import Flights
from gateway.cache.prompts import PromptCache
from gateway.errors import BackendCut, BudgetSpent
from gateway.inference.events import Relayed, UsageReported
from gateway.inference.request import InferenceRequest, Message, Sampling
from gateway.inference.usage import Usage
from gateway.pipeline import Exchange, Pipeline
from gateway.policy.load import load_policy
from gateway.store.client import Store
from gateway.telemetry.record import RequestRecord
from gateway.tenants.tenant import Identity, Tenant
from tests.unit.modes.scripted import Script, ScriptedBackends, Seen

POLICY = """
backends:
  cloud: {type: openai, base_url: 'http://127.0.0.1:9/v1', region: eu}
  dear: {type: openai, base_url: 'http://127.0.0.1:9/v2', region: eu}
models:
  large: [{backend: cloud, model: m, price: {input: 1, output: 2}, max_output_tokens: 100}]
  dear: [{backend: dear, model: m, price: {input: 10, output: 20}, max_output_tokens: 50}]
routes:
  - {name: chat, mode: cloud_only, models: [large], fallback: [dear], cache: {ttl: 1h}}
tenants:
  acme: {budgets: [{tokens: 10000, per: day}]}
"""
HELLO = Relayed(data=b"hello\n\n", text="hello", content=True, content_bytes=5)
LEFT = (Left(Limit(amount=10_000, unit="tokens", per="day"), 9_000, 60.0),)
STOP = Relayed(data=b"stop\n\n", finish_reason="stop")
LENGTH = Relayed(data=b"stop\n\n", finish_reason="length")
USAGE = UsageReported(Usage(input_tokens=10, output_tokens=3))


@dataclass
class Ledger:
    """Grants everything, or nothing; remembers what was claimed and charged."""

    refuse: bool = False
    grant: int | None = None
    claims: list = field(default_factory=list)
    charged: list = field(default_factory=list)
    extended: list = field(default_factory=list)
    most_nanousd: int = 10**15

    @asynccontextmanager
    async def hold(self, claim):
        if self.refuse:
            raise BudgetSpent("spent")
        self.claims.append(claim)
        granted = claim.output_tokens if self.grant is None else self.grant
        hold = Hold(hold_id="1", claim=claim, output_tokens=granted, reserved=worst_case(claim, granted), left=LEFT)
        try:
            yield hold
        finally:
            self.charged.append(hold.charged)

    async def extend(self, hold, charge):
        self.extended.append(charge)
        return charge.nanousd <= self.most_nanousd

    def end(self, hold):
        raise AssertionError("nothing is read on here")

    def share_left(self, *_):
        return 1.0


@pytest.fixture
async def cache():
    async with (
        Store("unix:///nowhere/at/all") as absent,
        PromptCache(absent, secret=b"s", max_bytes_per_answer=1_000) as opened,
    ):
        yield opened


@pytest.fixture
def policy(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    return load_policy(tmp_path, {})


class World:
    """A pipeline whose cache has no store: it remembers in memory."""

    def __init__(self, policy, steps, cache, **ledger) -> None:
        self.policy = policy
        self.scripts = {"cloud": Script(steps), "dear": Script([HELLO, STOP, USAGE])}
        self.ledger, self.cache = Ledger(**ledger), cache
        self.finished = []
        self.pipeline = Pipeline(
            ledger=self.ledger,
            cache=cache,
            flights=Flights(cache),
            backends=ScriptedBackends(self.scripts),
            finish=self.finished.append,
        )

    @property
    def kept(self):
        """The answers in memory."""
        return [found for _, _, found in self.cache._local._answers.values()]

    def age(self, seconds):
        """Make all that is kept so much older."""
        answers = self.cache._local._answers
        for name, (until, size, found) in answers.items():
            entry = msgspec.structs.replace(found.entry, stored_at=found.entry.stored_at - seconds)
            answers[name] = (until, size, msgspec.structs.replace(found, entry=entry))

    async def ask(self, *, temperature=0.0, control=None, **more):
        request = InferenceRequest(
            surface="chat",
            model="large",
            messages=(Message("user", "hi"),),
            fields={},
            stream=True,
            sampling=Sampling(temperature=temperature),
            prompt_bytes=40,
            **more,
        )
        exchange = Exchange(
            request=request,
            identity=Identity(tenant=Tenant(name="acme")),
            policy=self.policy,
            record=RequestRecord(request_id="req-1"),
            started=asyncio.get_running_loop().time(),
            cache_control=control or CacheControl(),
        )
        seen = Seen()
        await self.pipeline.run(exchange, seen)
        return SimpleNamespace(exchange=exchange, record=exchange.record, seen=seen)


async def test_what_was_used_is_charged(policy, cache):
    """The hold covers the worst case of the first that may answer; the charge is the backend's usage at its price."""
    world = World(policy, [HELLO, STOP, USAGE], cache)
    told = await world.ask()
    (claim,), (charge,) = world.ledger.claims, world.ledger.charged
    assert claim.price.output_nanousd == 2_000_000_000
    assert claim.output_tokens == 50
    assert (charge.tokens, charge.nanousd) == (13, 10 * 1_000 + 3 * 2_000)
    assert told.record.cost_nanousd == charge.nanousd


async def test_a_dearer_target_needs_a_larger_hold(policy, cache):
    """A failover first reserves what it may cost on top of what was tried, and is not taken where that is too much."""
    failing = [BackendCut("cut")]
    world = World(policy, failing, cache)
    told = await world.ask()
    first, second = world.ledger.extended
    bound = world.ledger.claims[0].input_tokens
    assert (first.nanousd, second.nanousd) == (bound * 1_000 + 50 * 2_000, bound * 10_000 + 50 * 20_000)
    assert told.record.deployment == "dear/m"
    poor = World(policy, failing, cache, most_nanousd=second.nanousd - 1)
    with pytest.raises(BackendCut):
        await poor.ask(temperature=1.0)
    assert not poor.scripts["dear"].calls


async def test_the_backend_is_asked_for_no_more_than_was_granted(policy, cache):
    """What a budget leaves is what the answer may have, for each of its choices."""
    world = World(policy, [HELLO, STOP, USAGE], cache, grant=21)
    await world.ask(max_tokens=1000, n=2)
    assert world.scripts["cloud"].calls[0].max_tokens == 10


async def test_a_hit_holds_and_asks_nothing(policy, cache):
    """Cache before budget: a kept answer is replayed without a hold, with its age."""
    world = World(policy, [HELLO, STOP, USAGE], cache)
    await world.ask()
    world.age(5)
    again = await world.ask()
    assert again.exchange.headers["x-firstdraft-cache"] == "hit"
    assert again.exchange.headers["age"] == "5"
    assert b"".join(event.data for event in again.seen.events) == HELLO.data + STOP.data + USAGE.data
    assert len(world.ledger.claims) == len(world.scripts["cloud"].calls) == 1


@pytest.mark.parametrize(
    "steps", [[HELLO, LENGTH, USAGE], [HELLO, BackendCut("cut")], [BackendCut("cut")]], ids=["cut", "failed", "other"]
)
async def test_only_whole_answers_of_the_first_choice_are_kept(policy, cache, steps):
    """Not one that its limit cut, not one that failed, not one that a fallback gave."""
    world = World(policy, steps, cache)
    with suppress(BackendCut):
        await world.ask()
    assert world.kept == []
    assert len(world.ledger.charged) == 1


async def test_an_answer_too_large_to_keep_is_passed_on_whole(policy, cache):
    """The cache's limit bounds what is kept in memory meanwhile, not the answer."""
    world = World(policy, [*[HELLO] * 500, STOP, USAGE], cache)
    told = await world.ask()
    assert len(told.seen.events) == 502
    assert world.kept == []


async def test_what_is_not_deterministic_is_not_kept(policy, cache):
    """Without temperature 0 the route's cache is bypassed, and so it is when the client says no-store."""
    world = World(policy, [HELLO, STOP, USAGE], cache)
    assert (await world.ask(temperature=0.7)).record.cache == "bypass"
    assert (await world.ask(control=parse("no-store"))).record.cache == "bypass"
    assert world.kept == []


async def test_clients_may_ask_for_a_fresh_answer(policy, cache):
    """`no-cache` asks anew and keeps the answer; `max-age` takes nothing older."""
    world = World(policy, [HELLO, STOP, USAGE], cache)
    await world.ask()
    for header in ("no-cache", "max-age=4"):
        world.age(5)
        assert (await world.ask(control=parse(header))).record.cache == "miss"
    world.age(5)
    assert (await world.ask(control=parse("max-age=6"))).record.cache == "hit"


async def test_a_spent_budget_is_refused_before_anybody_is_asked(policy, cache):
    """Without a downgrade in the route, a spent budget ends the request."""
    world = World(policy, [HELLO, STOP, USAGE], cache, refuse=True)
    with pytest.raises(BudgetSpent):
        await world.ask()
    assert world.scripts["cloud"].calls == []


async def test_a_cancelled_request_is_settled(policy, cache):
    """Whatever ends the request, the hold is charged with what was received."""
    world = World(policy, [HELLO, 60], cache)
    task = asyncio.create_task(world.ask())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    (charge,) = world.ledger.charged
    assert charge.estimated
    assert charge.tokens > 0
