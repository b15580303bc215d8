"""A draft that a backend with `role: draft` makes: shown like the edge's, and paid like any attempt."""

import asyncio

import msgspec
import pytest

from gateway.admission import charge, draft_beside
from gateway.errors import BackendUnreachable
from gateway.inference.events import DraftCompleted, DraftJudged, DraftState, DraftText, Relayed, TextDelta, WholeAnswer
from gateway.inference.usage import Usage
from gateway.modes import run as mode
from gateway.policy.compiled import Mode
from gateway.routing.decision import Decision

from .scripted import Script, Seen, deployment, plan
from .test_draft_refine import final

CLOUD = deployment("cloud")
PHONE = msgspec.structs.replace(
    deployment("phone"), backend=msgspec.structs.replace(deployment("phone").backend, drafts=True)
)
USED = Usage(input_tokens=9, output_tokens=4)


async def run(phone, cloud, finals=(CLOUD,)):
    seen = Seen()
    scripts = {"phone": Script(phone), "cloud": Script(cloud)}
    work = plan(scripts, mode=Mode.DRAFT_REFINE, finals=list(finals), draft=PHONE, max_tokens=50)
    try:
        await mode.run(work, seen)
    finally:
        charge(work.record, None)
        seen.scripts, seen.record = scripts, work.record
    return seen


@pytest.mark.parametrize(
    "phone", [final("Paris it is."), [WholeAnswer(body=b"{}", text="Paris it is.", finish_reason="stop", usage=USED)]]
)
async def test_it_is_shown_judged_and_paid(phone):
    """In the client's schema or whole: the text becomes the draft, never the final, and its tokens are charged."""
    seen = await run(phone, [0.05, *final("Paris it is.")])
    assert "".join(shown.text for shown in seen.of(DraftText)) == "Paris it is."
    assert seen.of(DraftCompleted)[0].confidence is None
    assert seen.of(DraftJudged)[0].state is DraftState.CONFIRMED
    assert "".join(event.text for event in seen.of(Relayed)) == "Paris it is."
    assert seen.record.deployment == CLOUD.id
    answer, draft = sorted(seen.record.attempts, key=lambda attempt: attempt.role == "draft")
    assert (draft.role, draft.outcome, answer.role) == ("draft", "ok", "final")
    assert draft.cost_nanousd == answer.cost_nanousd == 17
    assert (seen.record.input_tokens, seen.record.output_tokens, seen.record.cost_nanousd) == (18, 8, 34)
    assert seen.scripts["phone"].calls[0].max_tokens == 50


async def test_one_that_is_overtaken_is_cancelled_and_paid_as_far_as_it_came():
    """The backend has read the prompt and bills it: without its own word it is estimated."""
    begun = lambda call: setattr(call.record, "connect_s", 0.0)  # noqa: E731 - a step of the script
    seen = await run([begun, TextDelta("Pa"), 5.0], [0.05, *final("Paris it is.")])
    assert seen.scripts["phone"].cancelled == 1
    assert seen.of(DraftJudged)[0].state is DraftState.DROPPED
    (draft,) = (attempt for attempt in seen.record.attempts if attempt.role == "draft")
    assert (draft.outcome, draft.estimated) == ("cancelled", True)
    assert draft.input_tokens > 0
    assert seen.record.estimated


async def test_its_failure_is_the_drafts_alone():
    """The final goes on, and the deployment's health knows."""
    seen = await run([BackendUnreachable("no", deployment=PHONE.id)], [0.05, *final("Paris.")])
    assert seen.of(DraftJudged)[0].state is DraftState.DROPPED
    assert "".join(event.text for event in seen.of(Relayed)) == "Paris."
    (draft,) = (attempt for attempt in seen.record.attempts if attempt.role == "draft")
    assert (draft.outcome, seen.record.cost_nanousd) == ("backend_unreachable", 17)


async def test_it_may_become_the_answer():
    """Where it is a fallback and the others fail, the draft is the answer, and is paid once."""
    seen = await run(final("Paris."), [0.05, BackendUnreachable("no", deployment=CLOUD.id)], finals=(CLOUD, PHONE))
    assert seen.of(DraftJudged)[0].state is DraftState.PROMOTED
    assert "".join(event.text for event in seen.of(TextDelta)) == "Paris."
    assert (seen.record.deployment, seen.record.cost_nanousd) == (PHONE.id, 17)


async def test_its_worst_case_is_held_beside_the_finals():
    """Prompt and the draft's limit at its price, whether or not it may become the answer."""
    request = plan({}, mode=Mode.DRAFT_REFINE, finals=[CLOUD], draft=PHONE).request
    decision = Decision(policy_version="1", deployments=(CLOUD,), draft=PHONE, draft_max_tokens=64)
    beside = draft_beside(request, decision)
    assert beside.tokens > 64
    assert beside.nanousd == -(-((beside.tokens - 64) * 1_000_000 + 64 * 2_000_000) // 1_000_000)
    edge = deployment("edge", edge=True)
    assert draft_beside(request, msgspec.structs.replace(decision, draft=edge)) is None
    await asyncio.sleep(0)
