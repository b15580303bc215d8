import asyncio
from dataclasses import replace

import pytest

from gateway.errors import BackendRefused, BackendUnreachable, EdgeCrashed, EdgeOverloaded
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
from gateway.modes.confidence import features
from gateway.policy.compiled import Mode

from .scripted import Script, Seen, deployment, plan

EDGE, CLOUD = deployment("edge", edge=True), deployment("cloud")
DRAFT = [
    TextDelta("Paris"),
    TextDelta(" it is."),
    Finished("stop"),
    UsageReported(Usage(input_tokens=9, output_tokens=4)),
]


def final(text):
    return [
        Relayed(data=b"x", text=text, content=True, content_bytes=len(text)),
        Relayed(data=b"y", finish_reason="stop"),
        UsageReported(Usage(input_tokens=9, output_tokens=4)),
    ]


async def run(edge, cloud, finals=(CLOUD,), max_tokens=None, estimate=lambda *_: None):
    seen = Seen()
    scripts = {"edge": Script(edge), "cloud": Script(cloud)}
    work = plan(scripts, mode=Mode.DRAFT_REFINE, finals=list(finals), draft=EDGE, max_tokens=max_tokens)
    work = replace(work, draft_within_s=1.5, isolated=True, background=True)
    work.backends.estimate = estimate
    try:
        await mode.run(work, seen)
    finally:
        seen.scripts, seen.record, seen.headers = scripts, work.record, work.headers
    return seen


async def test_a_draft_that_the_final_repeats_is_confirmed():
    """Draft first, whole, then the final; the verdict comes not later than the finish reason."""
    seen = await run(DRAFT, [0.05, *final("Paris it is!")])
    kinds = [type(event) for event in seen.events]
    assert kinds == [DraftText, DraftText, DraftCompleted, Relayed, DraftJudged, Relayed, UsageReported]
    (judged,) = seen.of(DraftJudged)
    assert (judged.state, judged.similarity, judged.text) == (DraftState.CONFIRMED, 1.0, "Paris it is.")
    assert seen.record.draft_ttft_s < seen.record.final_ttft_s


async def test_another_final_replaces_the_draft():
    """The verdict says how far the two are apart."""
    seen = await run(DRAFT, [0.05, *final("Berlin, as everybody knows")])
    (judged,) = seen.of(DraftJudged)
    assert judged.state is DraftState.REPLACED
    assert judged.similarity < 0.4


async def test_a_final_that_comes_first_drops_the_draft_and_stops_the_edge():
    """Nobody decodes a draft that has nothing left to give."""
    seen = await run([0.5, *DRAFT], [0.02, *final("Paris")])
    (judged,) = seen.of(DraftJudged)
    assert judged.state is DraftState.DROPPED
    assert seen.scripts["edge"].cancelled == 1
    assert not seen.of(DraftText)


async def test_a_verdict_alone_never_begins_the_response():
    """A backend's 429 keeps its status with drafts on: a draft that nobody saw is dropped in silence."""
    seen = Seen()
    scripts = {"edge": Script([EdgeCrashed("gone")]), "cloud": Script([0.05, BackendRefused("slow down", status=429)])}
    work = plan(scripts, mode=Mode.DRAFT_REFINE, finals=[CLOUD], draft=EDGE)
    with pytest.raises(BackendRefused):
        await mode.run(work, seen)
    assert seen.events == []


async def test_a_verdict_that_was_kept_back_comes_with_the_final():
    """The client still learns that there will be no draft, as soon as the response has begun anyway."""
    seen = await run([EdgeCrashed("gone")], [0.05, *final("Paris")])
    assert [type(event) for event in seen.events[:2]] == [DraftJudged, Relayed]


async def test_thinking_does_not_overtake_a_draft():
    """A final that begins with reasoning has no visible text yet: the draft goes on."""
    thinking = Relayed(data=b"r", content=True, content_bytes=9)
    seen = await run([0.05, *DRAFT], [thinking, 0.2, *final("Paris it is.")])
    assert seen.of(DraftText)
    assert seen.of(DraftJudged)[0].state is DraftState.CONFIRMED


async def test_an_overtaken_draft_is_dropped():
    """A final with more text than the draft so far makes the draft worthless."""
    seen = await run([TextDelta("Par"), 5, *DRAFT], [0.02, *final("Paris")])
    assert [judged.state for judged in seen.of(DraftJudged)] == [DraftState.DROPPED]


async def test_a_crashed_edge_leaves_the_final_alone():
    """The draft is dropped, the answer is the final, nothing else is noticed."""
    seen = await run([TextDelta("Par"), EdgeCrashed("gone")], [0.02, *final("Paris")])
    assert [judged.state for judged in seen.of(DraftJudged)] == [DraftState.DROPPED]
    assert seen.record.deployment == "cloud/m"


async def test_a_draft_that_the_edge_has_no_time_for_is_not_begun():
    """The edge refuses it, the final is as ever, and record and headers say that it was the queue."""
    seen = await run([EdgeOverloaded("64 requests wait")], [0.01, *final("Paris.")])
    assert seen.of(DraftJudged)[0].state is DraftState.DROPPED
    assert (seen.record.draft, seen.record.no_draft) == ("dropped", "queue")
    assert seen.headers == {"x-firstdraft-no-draft": "queue"}
    (call,) = seen.scripts["edge"].calls
    assert (call.first_token_within_s, call.isolated, call.background) == (1.5, True, True)


async def test_a_draft_has_a_confidence_where_the_model_is_calibrated():
    """The estimate is of the whole draft's features, which its attempt keeps; without one there is no number."""
    seen = await run(DRAFT, [0.05, *final("Paris it is.")])
    assert seen.of(DraftCompleted)[0].confidence is None
    asked = []
    sure = [
        lambda call: call.record.logprobs.extend([-0.5, -0.25]),
        lambda call: call.record.margins.extend([0.5, 0.75]),
        *DRAFT,
    ]
    seen = await run(
        sure, [0.05, *final("Paris it is.")], estimate=lambda edge, found: asked.append((edge, found)) or 0.75
    )
    assert seen.of(DraftCompleted)[0].confidence == 0.75
    (draft,) = (attempt for attempt in seen.record.attempts if attempt.role == "draft")
    assert asked == [(EDGE.backend, draft.features)]
    assert draft.features == features([-0.5, -0.25], [0.5, 0.75], "Paris it is.")


async def test_a_fault_in_the_draft_leaves_the_final_alone():
    """Even an error that nobody foresaw in drafting does not reach the final."""
    seen = await run([ZeroDivisionError("ours")], [0.02, *final("Paris")])
    assert seen.record.deployment == "cloud/m"


async def test_a_whole_draft_is_promoted_when_the_final_fails_and_the_edge_may_answer():
    """With the edge among the fallbacks, the draft that is already there is the answer."""
    seen = await run(DRAFT, [BackendUnreachable("down")], finals=(CLOUD, EDGE))
    assert [judged.state for judged in seen.of(DraftJudged)] == [DraftState.PROMOTED]
    assert seen.of(TextDelta) == [TextDelta("Paris it is.")]
    assert seen.of(Finished) == [Finished("stop")]
    assert seen.record.deployment == "edge/m"
    assert len(seen.scripts["edge"].calls) == 1


async def test_a_draft_cut_by_its_own_limit_is_no_answer():
    """The edge is asked again, in full, when the draft stopped at the draft's limit."""
    cut = [*DRAFT[:2], Finished("length"), DRAFT[3]]
    seen = await run(cut, [BackendUnreachable("down")], finals=(CLOUD, EDGE))
    assert len(seen.scripts["edge"].calls) == 2
    assert seen.of(DraftJudged)[0].state is not DraftState.PROMOTED


async def test_when_the_edge_fails_as_well_the_larger_models_failure_is_told():
    """That the edge crashed too helps nobody; its retry-after would be wrong."""
    with pytest.raises(BackendUnreachable):
        await run([EdgeCrashed("gone")], [BackendUnreachable("down")], finals=(CLOUD, EDGE))


async def test_without_a_fallback_the_failure_is_told_and_the_draft_dropped():
    """A route that does not name the edge never passes a draft off as the answer."""
    with pytest.raises(BackendUnreachable):
        await run(DRAFT, [0.05, BackendUnreachable("down")])


async def test_a_refusal_is_not_turned_into_a_draft():
    """A request that the backend calls wrong is wrong, whatever the edge made of it."""
    with pytest.raises(BackendRefused):
        await run(DRAFT, [0.05, BackendRefused("bad", status=400)], finals=(CLOUD, EDGE))


async def test_a_plain_answer_is_judged_before_it_is_handed_over():
    """Not streamed: the verdict stands before the whole answer, so that its body can carry it."""
    whole = WholeAnswer(body=b"{}", text="Paris it is", finish_reason="stop", usage=Usage())
    seen = await run(DRAFT, [0.05, whole])
    assert [type(event) for event in seen.events][-2:] == [DraftJudged, WholeAnswer]


async def test_cancelling_the_request_stops_both_sides():
    """A client that leaves ends the draft and the final alike."""
    seen = Seen()
    scripts = {"edge": Script([TextDelta("a"), 60]), "cloud": Script([60])}
    work = plan(scripts, mode=Mode.DRAFT_REFINE, finals=[CLOUD], draft=EDGE)
    task = asyncio.create_task(mode.run(work, seen))
    await seen.until(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert (scripts["edge"].cancelled, scripts["cloud"].cancelled) == (1, 1)


class Meaning:
    """Finds everything so much alike, or does not come to it in time."""

    def __init__(self, found) -> None:
        self.found = found
        self.asked = []

    async def likeness(self, one, other, *, within_s):
        self.asked.append((one, other, within_s))
        return self.found


@pytest.mark.parametrize(
    ("found", "said", "state"),
    [
        (1.0, "It is Paris", DraftState.REVISED),
        (None, "Town on the Seine", DraftState.REPLACED),
        (1.0, "Paris it is!", DraftState.CONFIRMED),
    ],
)
async def test_meanings_are_compared_where_the_route_says_so(found, said, state):
    """They are a third of the similarity; what came too late is left out, and what is confirmed anyway is not asked."""
    seen = Seen()
    scripts = {"edge": Script(DRAFT), "cloud": Script([0.05, *final(said)])}
    work = plan(scripts, mode=Mode.DRAFT_REFINE, finals=[CLOUD], draft=EDGE)
    work = replace(work, compares_meaning=True)
    work.backends.meaning = Meaning(found)
    await mode.run(work, seen)
    assert seen.of(DraftJudged)[0].state is state
    assert len(work.backends.meaning.asked) == (state is not DraftState.CONFIRMED)
