import asyncio
import math
from dataclasses import replace

import pytest

from gateway.errors import BackendRefused, BackendUnreachable, EdgeCrashed, EdgeOverloaded, EdgeUnsuitable
from gateway.inference.events import (
    DraftCompleted,
    DraftJudged,
    DraftState,
    DraftText,
    Finished,
    Relayed,
    TextDelta,
    UsageReported,
    WholeAnswer,
)
from gateway.inference.usage import Usage
from gateway.modes import run as mode
from gateway.policy.compiled import CascadeRule, Mode

from .scripted import Script, Seen, deployment, plan

EDGE, CLOUD = deployment("edge", edge=True), deployment("cloud")
SURE = [lambda call: (call.record.logprobs.extend([-0.5, -0.25]), call.record.margins.extend([0.5, 0.75]))]
ANSWER = [
    *SURE,
    TextDelta("Paris"),
    TextDelta(" it is."),
    Finished("stop"),
    UsageReported(Usage(input_tokens=9, output_tokens=4)),
]
FINAL = [
    Relayed(data=b"x", text="Paris it is!", content=True, content_bytes=12),
    Relayed(data=b"y", finish_reason="stop"),
    UsageReported(Usage(input_tokens=9, output_tokens=4)),
]


def rule(**changed):
    given = {"threshold": 0.8, "target_error": None, "within_s": None, "accepts_uncalibrated": False}
    return CascadeRule(**given | changed)


def world(edge, cloud, *, confidence=0.9, finals=(CLOUD,), max_tokens=None, **changed):
    scripts = {"edge": Script(edge), "cloud": Script(cloud)}
    work = plan(
        scripts,
        mode=Mode.CASCADE,
        finals=list(finals),
        draft=EDGE,
        max_tokens=max_tokens,
        cascade=rule(**changed),
    )
    work.backends.estimate = lambda _edge, _found: confidence
    return work, scripts


async def run(edge, cloud, **given):
    seen = Seen()
    work, seen.scripts = world(edge, cloud, **given)
    try:
        await mode.run(work, seen)
    finally:
        seen.record, seen.headers = work.record, work.headers
    return seen


def outcome(seen):
    assert seen.headers["x-firstdraft-cascade"] == seen.record.cascade
    return seen.record.cascade


def charged(seen):
    return [attempt.deployment for attempt in seen.record.attempts if attempt.role == "final"]


async def test_a_sure_answer_stands_and_nobody_else_is_asked():
    """The text goes out as content once, after the verdict; it is charged as the edge's answer."""
    seen = await run(ANSWER, FINAL)
    kinds = [type(event) for event in seen.events]
    assert kinds == [DraftText, DraftText, DraftCompleted, DraftJudged, TextDelta, Finished, UsageReported]
    assert seen.of(DraftJudged)[0].state is DraftState.PROMOTED
    assert seen.of(TextDelta) == [TextDelta("Paris it is.")]
    assert outcome(seen) == "stands"
    assert (seen.record.deployment, seen.record.confidence) == ("edge/m", 0.9)
    assert seen.scripts["cloud"].calls == []
    (attempt,) = seen.record.attempts
    assert (attempt.role, attempt.input_tokens, attempt.output_tokens) == ("final", 9, 4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"confidence": 0.79}, "unsure"),
        ({"confidence": None}, "uncalibrated"),
        ({"threshold": None, "target_error": 0.05}, "uncalibrated"),
    ],
    ids=["under the threshold", "no calibration", "no curve"],
)
async def test_an_answer_that_is_not_sure_enough_is_no_content(given, said):
    """The larger model answers, the draft gets its verdict, and only the larger model is charged."""
    work, scripts = world(ANSWER, FINAL, confidence=given.pop("confidence", 0.9))
    work = replace(work, cascade=rule(**given))
    seen = Seen()
    await mode.run(work, seen)
    assert work.record.cascade == said
    assert not seen.of(TextDelta)
    assert seen.of(DraftJudged)[0].state is DraftState.CONFIRMED
    assert work.record.deployment == "cloud/m"
    assert [attempt.role for attempt in work.record.attempts] == ["draft", "final"]
    assert len(scripts["cloud"].calls) == 1


@pytest.mark.parametrize(("threshold", "said"), [(0.85, "stands"), (0.95, "unsure"), (math.inf, "unsure")])
async def test_a_target_error_is_turned_into_a_threshold(threshold, said):
    """The calibration's curve says which; where no threshold keeps the target, nothing stands."""
    work, _ = world(ANSWER, FINAL)
    work = replace(work, cascade=rule(threshold=None, target_error=0.05))
    asked = []
    work.backends.threshold = lambda _edge, target: asked.append(target) or threshold
    await mode.run(work, Seen())
    assert (asked, work.record.cascade) == ([0.05], said)


async def test_a_route_may_trust_what_was_never_calibrated():
    """Only where it says so in as many words."""
    assert outcome(await run(ANSWER, FINAL, confidence=None, accepts_uncalibrated=True)) == "stands"


async def test_an_answer_that_its_own_limit_cut_is_none():
    """However sure: it is the larger model's turn. Cut by the client's own limit it is what the client asked for."""
    cut = [*ANSWER[:3], Finished("length"), ANSWER[4]]
    assert outcome(await run(cut, FINAL)) == "cut"
    assert outcome(await run(cut, FINAL, max_tokens=4)) == "stands"


@pytest.mark.parametrize("error", [EdgeCrashed("gone"), EdgeOverloaded("busy"), EdgeUnsuitable("long")])
@pytest.mark.parametrize("shown", [[], [TextDelta("Par")]], ids=["at once", "in the middle"])
async def test_an_edge_that_fails_leaves_the_answer_to_the_larger_model(error, shown):
    """Nothing of a broken draft is content, and it gets one verdict."""
    seen = await run([*shown, error], FINAL)
    assert outcome(seen) == "failed"
    assert [judged.state for judged in seen.of(DraftJudged)] == [DraftState.DROPPED]
    assert seen.record.deployment == "cloud/m"
    assert charged(seen) == ["cloud/m"]


async def test_an_edge_that_is_not_done_in_time_is_stopped():
    """The route's `within` bounds what the cascade may cost in time."""
    seen = await run([TextDelta("Par"), 30, *ANSWER], FINAL, within_s=0.05)
    assert outcome(seen) == "late"
    assert seen.scripts["edge"].cancelled == 1
    assert [judged.state for judged in seen.of(DraftJudged)] == [DraftState.DROPPED]


async def test_without_an_edge_to_ask_the_larger_model_answers():
    """As the decision said: no draft."""
    work, _ = world(ANSWER, FINAL)
    work = replace(work, draft=None)
    seen = Seen()
    await mode.run(work, seen)
    assert work.record.cascade == "no_draft"
    assert [type(event) for event in seen.events] == [Relayed, Relayed, UsageReported]


async def test_when_the_larger_model_fails_the_draft_is_the_answer_only_if_the_route_says_so():
    """With the edge among the fallbacks it is promoted, though it did not stand; else the failure is told."""
    seen = await run(ANSWER, [BackendUnreachable("down")], confidence=0.1, finals=(CLOUD, EDGE))
    assert seen.of(DraftJudged)[0].state is DraftState.PROMOTED
    assert (outcome(seen), seen.record.deployment) == ("unsure", "edge/m")
    with pytest.raises(BackendUnreachable):
        await run(ANSWER, [BackendUnreachable("down")], confidence=0.1)


async def test_a_refusal_of_the_larger_model_is_told():
    """A request that is wrong is wrong, whatever the edge made of it."""
    with pytest.raises(BackendRefused):
        await run(ANSWER, [BackendRefused("bad", status=400)], confidence=0.1, finals=(CLOUD, EDGE))


async def test_a_plain_answer_has_its_verdict_first():
    """Not streamed, the body can carry draft and verdict."""
    whole = WholeAnswer(body=b"{}", text="Berlin", finish_reason="stop", usage=Usage())
    seen = await run(ANSWER, [whole], confidence=0.1)
    assert [type(event) for event in seen.events][-2:] == [DraftJudged, WholeAnswer]


@pytest.mark.parametrize("escalates", [False, True])
async def test_a_client_that_leaves_ends_what_runs_and_pays_for_what_it_got(escalates):
    """While the edge answers, for the edge's tokens; after that, for the larger model's alone."""
    edge = ANSWER if escalates else [*ANSWER[:2], 60]
    work, scripts = world(edge, [FINAL[0], 60], confidence=0.1)
    seen = Seen()
    task = asyncio.create_task(mode.run(work, seen))
    await seen.until(4 if escalates else 1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert (scripts["edge"].cancelled, scripts["cloud"].cancelled) == ((0, 1) if escalates else (1, 0))
    (final,) = (attempt for attempt in work.record.attempts if attempt.role == "final")
    assert final.deployment == ("cloud/m" if escalates else "edge/m")
    assert final.estimated
    assert final.output_tokens == (4 if escalates else 2)
