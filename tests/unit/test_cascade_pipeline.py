"""What a cascade holds, pays and keeps: both ends are in the worst case, what was used is charged."""

import asyncio
from types import SimpleNamespace

import pytest

from gateway.backends.edges import Edges
from gateway.cache.prompts import PromptCache
from gateway.edge.client import EdgeStatus
from gateway.errors import BackendUnreachable
from gateway.inference.events import Finished, TextDelta, UsageReported
from gateway.inference.usage import Usage
from gateway.policy.load import load_policy
from gateway.store.client import Store
from tests.unit.modes.scripted import Script
from tests.unit.test_pipeline import HELLO, STOP, USAGE, World

POLICY = """
backends:
  edge: {type: edge, model: smollm2-135m-instruct, region: local}
  cloud: {type: openai, base_url: 'http://127.0.0.1:9/v1', region: eu}
models:
  large: [{backend: cloud, model: m, price: {input: 1, output: 2}, max_output_tokens: 100}]
  small: [{backend: edge, price: {input: 0.1, output: 0.5}}]
routes:
  - {name: chat, mode: cascade, models: [large], fallback: [small], cache: {ttl: 1h}, cascade: {threshold: 0.8},
     draft: {max_tokens: 20}}
tenants:
  acme: {budgets: [{tokens: 10000, per: day}]}
"""
EDGE = "edge/smollm2-135m-instruct"
ANSWER = [
    lambda call: call.record.logprobs.extend([-0.5] * 4),
    TextDelta("Paris."),
    Finished("stop"),
    UsageReported(Usage(input_tokens=9, output_tokens=4)),
]
FINAL = [HELLO, STOP, USAGE]


@pytest.fixture
async def cache():
    async with (
        Store("unix:///nowhere/at/all") as absent,
        PromptCache(absent, secret=b"s", max_bytes_per_answer=1_000) as opened,
    ):
        yield opened


@pytest.fixture
def make(tmp_path, cache):
    """A function that makes a pipeline with an edge that follows a script."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    policy = load_policy(tmp_path, {})
    text = POLICY.replace("max_output_tokens: 100}", "max_output_tokens: 100, scoring: {api: vllm}}")
    text = text.replace("output: 2}", "output: 200}")
    (tmp_path / "policy.yaml").write_text(text.replace("cascade: {", "refine: {score: {least: -2}}, cascade: {"))
    scoring_policy = load_policy(tmp_path, {})

    def made(edge, cloud, *, confidence, scores=(), **ledger):
        world = World(scoring_policy if scores else policy, cloud, cache, **ledger)
        world.pipeline._backends.scores = list(scores)
        world.scripts["edge"] = Script(edge)
        world.pipeline._backends.estimate = lambda _edge, _found: confidence
        status = EdgeStatus(state="warm", n_ctx=8192)
        world.pipeline._backends.edges = Edges(SimpleNamespace(status=status, wait_s=0.0))
        return world

    return made


async def test_the_worst_case_holds_both(make):
    """The input twice, the draft's limit and the answer's, each at its own price."""
    world = make(ANSWER, FINAL, confidence=0.9)
    await world.ask()
    (claim,) = world.ledger.claims
    bound = claim.input_tokens
    assert claim.fixed_tokens == bound + bound + 20
    assert claim.fixed_nanousd == bound * 1_000 + bound * 100 + 20 * 500
    assert claim.output_tokens == 100


async def test_what_stands_is_charged_as_the_edges_and_kept(make):
    """The larger model is not asked and not paid; the answer is the route's first choice, so it may be kept."""
    world = make(ANSWER, FINAL, confidence=0.9)
    told = await world.ask()
    (charge,) = world.ledger.charged
    assert (charge.tokens, charge.nanousd) == (13, 9 * 100 + 4 * 500)
    assert told.exchange.headers["x-firstdraft-cascade"] == told.record.cascade == "stands"
    again = await world.ask()
    assert again.record.cache == "hit"
    assert len(world.scripts["edge"].calls) == 1


async def test_what_did_not_stand_costs_nothing(make):
    """The larger model's answer is charged alone, within what was held, and kept."""
    world = make(ANSWER, FINAL, confidence=0.1)
    told = await world.ask()
    (charge,) = world.ledger.charged
    assert (charge.tokens, charge.nanousd) == (13, 10 * 1_000 + 3 * 2_000)
    assert told.record.deployment == "cloud/m"
    (extended,) = world.ledger.extended
    assert extended.tokens <= world.ledger.claims[0].fixed_tokens + 100
    assert (await world.ask()).record.cache == "hit"


async def test_a_draft_that_stands_in_for_a_failed_model_is_charged_and_not_kept(make):
    """It is an answer, but not the one that the route wanted."""
    world = make(ANSWER, [BackendUnreachable("down")], confidence=0.1)
    told = await world.ask()
    (charge,) = world.ledger.charged
    assert (charge.tokens, told.record.deployment, told.record.draft) == (13, EDGE, "promoted")
    assert world.kept == []


async def test_a_client_that_leaves_while_the_edge_answers_pays_for_it(make):
    """What the edge wrote so far is booked, by its price."""
    world = make([*ANSWER[:2], 60], FINAL, confidence=0.9)
    task = asyncio.create_task(world.ask(temperature=1.0))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    (charge,) = world.ledger.charged
    assert charge.estimated
    assert charge.output_tokens == 4
    assert world.scripts["cloud"].calls == []


async def test_a_draft_that_a_score_lets_stand_is_charged_with_its_read_and_kept(make):
    """The edge's answer at its price, the read at the larger model's; both within what was held before the read."""
    world = make(ANSWER, FINAL, confidence=0.1, scores=[(-0.1, -0.2)])
    told = await world.ask()
    assert (told.record.cascade, told.record.score, told.record.deployment) == ("scored", "kept", EDGE)
    (charge,) = world.ledger.charged
    assert charge.tokens == 13 + 101
    assert charge.nanousd == 9 * 100 + 4 * 500 + 100 * 1_000 + 200_000
    (extended,) = world.ledger.extended
    assert extended.tokens >= charge.tokens
    assert extended.nanousd >= charge.nanousd
    assert (await world.ask()).record.cache == "hit"


async def test_a_score_that_refines_is_in_the_hold_with_the_answer(make):
    """Read and answer are both charged, and never more than was held."""
    world = make(ANSWER, FINAL, confidence=0.1, scores=[(-9.0,)])
    told = await world.ask()
    assert (told.record.score, told.record.deployment) == ("refined", "cloud/m")
    (charge,) = world.ledger.charged
    assert charge.tokens == 13 + 101
    assert all(extended.tokens >= charge.tokens for extended in world.ledger.extended)
