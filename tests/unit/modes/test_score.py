import asyncio
from dataclasses import replace

import msgspec
import pytest

from gateway.backends.kept import Kept
from gateway.errors import BackendBroken, BackendRefused, BackendUnreachable
from gateway.inference.deployment import FREE, Price, Scoring
from gateway.inference.events import DraftJudged, DraftState, Finished, Relayed, TextDelta, UsageReported
from gateway.inference.prediction import Prediction
from gateway.inference.request import Message
from gateway.inference.usage import Usage
from gateway.modes import run as mode
from gateway.modes.score import pays
from gateway.policy.compiled import CascadeRule, Mode, RefineRule

from .scripted import Script, Seen, deployment, plan

EDGE = deployment("edge", edge=True)
PRICE = Price(input_nanousd=1_000_000, output_nanousd=10_000_000, cached_input_nanousd=500_000)
CLOUD = msgspec.structs.replace(deployment("cloud"), scoring=Scoring(api="vllm"), price=PRICE)
ANSWER = [
    lambda call: call.record.logprobs.extend([-0.5]),
    TextDelta("Paris it is."),
    Finished("stop"),
    UsageReported(Usage(input_tokens=9, output_tokens=40)),
]
FINAL = [Relayed(data=b"x", text="Berlin", content=True, content_bytes=6), Relayed(data=b"y", finish_reason="stop")]
NEVER = CascadeRule(threshold=1.0, target_error=None, within_s=None, accepts_uncalibrated=False)
GATE = RefineRule(wait_s=1.0, quantile=0.1, least=-2.0)


class Held:
    """Grants or refuses what is asked for beside the answer; remembers it."""

    def __init__(self, *, grants=True) -> None:
        self.grants = grants
        self.also: list = []

    async def __call__(self, target, also=None):
        self.also.append(also)
        return also is None or self.grants


async def run(scores, *, kind=Mode.CASCADE, edge=ANSWER, held=None, confidence=0.2, **changed):
    seen = Seen()
    scripts = {"edge": Script(edge), "cloud": Script(FINAL)}
    work = plan(scripts, mode=kind, finals=[CLOUD], draft=EDGE, cascade=NEVER if kind is Mode.CASCADE else None)
    work = replace(work, **{"refine": GATE, "extend_hold": held or Held(), **changed})
    work.backends.estimate = lambda _edge, _found: confidence
    work.backends.scores = list(scores)
    await mode.run(work, seen)
    seen.work, seen.record, seen.scripts = work, work.record, scripts
    return seen


async def test_a_draft_that_surprises_nobody_is_kept():
    """The larger model reads it and writes nothing; the read is charged, and so is the edge's answer."""
    seen = await run([(-0.5, -1.9, -0.1, -0.2)])
    assert (seen.record.score, seen.record.cascade, seen.record.draft) == ("kept", "scored", "promoted")
    assert seen.of(TextDelta) == [TextDelta("Paris it is.")]
    assert seen.scripts["cloud"].calls == []
    (call, text), *_ = seen.work.backends.scored
    assert (call.deployment, text) == (CLOUD, "Paris it is.")
    score = next(attempt for attempt in seen.record.attempts if attempt.role == "score")
    assert (score.input_tokens, score.output_tokens, score.outcome) == (100, 1, "ok")
    assert score.cost_nanousd == CLOUD.price.cost_nanousd(input_tokens=100, output_tokens=1)


async def test_a_draft_with_a_surprise_in_it_is_refined():
    """One token in ten under the threshold is enough at that quantile."""
    seen = await run([(-0.1, -0.1, -9.0, -0.1)])
    assert (seen.record.score, seen.record.cascade) == ("refined", "unsure")
    assert seen.record.deployment == "cloud/m"


@pytest.mark.parametrize(
    "failure", [BackendUnreachable("down"), BackendBroken("odd"), BackendRefused("no", status=400)]
)
async def test_a_score_that_fails_costs_the_request_nothing(failure):
    """Whatever goes wrong with reading, the answer is written."""
    seen = await run([failure])
    assert (seen.record.score, seen.record.deployment) == ("failed", "cloud/m")


async def test_a_server_without_scores_keeps_its_breaker_shut_and_is_left_alone():
    """However often reading fails, answers are asked for; reading is not for long."""
    shared = None
    told = []
    for _ in range(16):
        seen = Seen()
        work = plan({"edge": Script(ANSWER), "cloud": Script(FINAL)}, mode=Mode.CASCADE, finals=[CLOUD], draft=EDGE)
        work = replace(work, cascade=NEVER, refine=GATE)
        shared = shared or work.backends
        shared.scripts = work.backends.scripts
        shared.scores = [BackendBroken("no such thing")]
        await mode.run(replace(work, backends=shared), seen)
        told.append(work.record.score)
        assert work.record.deployment == "cloud/m"
    assert told[0] == "failed"
    assert told[-1] == "no_gain"
    assert shared.health.unhealthy() == frozenset()


async def test_a_read_is_never_believed_to_be_longer_than_it_can_have_been():
    """What the backend counts beyond that locks nobody's budget."""
    seen = await run([(-0.1,)])
    score = next(attempt for attempt in seen.record.attempts if attempt.role == "score")
    assert not score.estimated
    seen = Seen()
    work = plan({"edge": Script(ANSWER), "cloud": Script(FINAL)}, mode=Mode.CASCADE, finals=[CLOUD], draft=EDGE)
    work = replace(work, cascade=NEVER, refine=GATE)

    async def lies(call, _text):
        call.record.usage = Usage(input_tokens=10**9, output_tokens=10**9)
        return (-0.1,)

    work.backends.score = lies
    await mode.run(work, seen)
    score = next(attempt for attempt in work.record.attempts if attempt.role == "score")
    assert (score.input_tokens, score.output_tokens, score.estimated) == (40 + 64 + 16 + len("Paris it is."), 1, True)


async def test_a_score_that_the_budget_has_no_room_for_is_not_asked():
    """What reading costs at most is in the hold before anything is sent."""
    held = Held(grants=False)
    seen = await run([(-0.1,)], held=held)
    assert (seen.record.score, seen.work.backends.scored) == ("over_budget", [])
    (beside,) = (found for found in held.also if found is not None)
    assert beside.tokens == 40 + 64 + 16 + len("Paris it is.") + 1


async def test_a_sure_draft_needs_no_score():
    """What the edge is sure of is not read by anybody."""
    seen = await run([], confidence=1.0)
    assert (seen.record.cascade, seen.record.score) == ("stands", "")


async def test_in_draft_refine_the_final_waits_for_a_draft_that_can_be_scored():
    """As long as the route says; a draft that comes later is a draft like any other."""
    seen = await run([(-0.1,)], kind=Mode.DRAFT_REFINE, edge=[0.05, *ANSWER])
    assert (seen.record.score, seen.record.draft, seen.scripts["cloud"].calls) == ("kept", "promoted", [])
    late = await run([], kind=Mode.DRAFT_REFINE, edge=[0.3, *ANSWER], refine=replace(GATE, wait_s=0.05))
    assert (late.record.score, late.record.deployment) == ("", "cloud/m")
    assert late.of(DraftJudged)[0].state is DraftState.DROPPED


async def test_a_client_that_leaves_while_the_draft_is_read_ends_it():
    """What was sent may have been read: it is charged as an estimate."""
    seen = Seen()
    work = plan(
        {"edge": Script(ANSWER), "cloud": Script(FINAL)}, mode=Mode.CASCADE, finals=[CLOUD], draft=EDGE, cascade=NEVER
    )
    work = replace(work, refine=GATE)

    async def forever(call, _text):
        call.record.connect_s = 0.0
        await asyncio.sleep(60)

    work.backends.score = forever
    task = asyncio.create_task(mode.run(work, seen))
    await seen.until(2)
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    score = next(attempt for attempt in work.record.attempts if attempt.role == "score")
    assert (score.outcome, score.estimated, score.input_tokens > 0) == ("cancelled", True, True)


class Observed:
    def __init__(self, prediction) -> None:
        self.prediction = prediction

    def predictions(self, _tokens):
        return {CLOUD.id: self.prediction}


@pytest.mark.parametrize(
    ("price", "prompt_bytes", "answer", "kept", "expected"),
    [
        ((1, 2), 400, 200, None, True),  # 1,000 prompt and 200 answer tokens' price: reading is cheap beside writing
        ((1, 2), 40_000, 20, None, False),  # a long prompt read twice for a short answer
        ((1, 2), 400, 200, False, False),  # nothing was ever kept
        ((1, 2), 40_000, 20, True, False),
        ("free", 400, 200, None, True),
        ("free", 400, 1, None, False),
    ],
)
async def test_the_arithmetic(price, prompt_bytes, answer, kept, expected):
    """Score first where reading, and writing as often as the draft is not kept, costs less than writing at once."""
    priced = FREE
    if price != "free":
        given = [int(one * 1_000_000_000) for one in price]
        priced = Price(input_nanousd=given[0], output_nanousd=given[1], cached_input_nanousd=given[0])
    scorer = msgspec.structs.replace(CLOUD, price=priced)
    work = plan({}, mode=Mode.CASCADE, finals=[scorer], draft=EDGE)
    prediction = Prediction(first_token_s=0.2, per_token_s=0.02, output_tokens=answer)
    request = msgspec.structs.replace(work.request, prompt_bytes=prompt_bytes)
    work = replace(work, observed=Observed(prediction), request=request)
    for _ in range(60 if kept is not None else 0):
        work.backends.kept.note(scorer.id, kept=kept)
    assert pays(work, scorer, 30) is expected


async def test_a_prompt_that_sglang_has_in_its_cache_makes_reading_cheap():
    """In a conversation's next turn the prompt costs what cached input costs; vLLM reads it anew."""
    price = Price(input_nanousd=10**9, output_nanousd=10**9, cached_input_nanousd=10**8)
    for api, expected in (("sglang", True), ("vllm", False)):
        scorer = msgspec.structs.replace(CLOUD, price=price, scoring=Scoring(api=api))
        work = plan({}, mode=Mode.CASCADE, finals=[scorer], draft=EDGE)
        turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
        request = msgspec.structs.replace(work.request, prompt_bytes=4_000, messages=turns)
        prediction = Prediction(first_token_s=0.2, per_token_s=0.02, output_tokens=100)
        work = replace(work, request=request, observed=Observed(prediction))
        work.backends.kept.note(scorer.id, kept=False)
        for _ in range(10):
            work.backends.kept.note(scorer.id, kept=False)
        assert pays(work, scorer, 30) is expected


def test_what_was_kept_is_forgotten_in_time():
    """A deployment whose scores let nothing stand is asked again after a while."""
    now = 0.0
    kept = Kept(lambda: now)
    assert kept.share("a") == 0.5
    for _ in range(50):
        kept.note("a", kept=False)
    assert kept.share("a") < 0.01
    now = 3_600.0
    assert kept.share("a") > 0.49
