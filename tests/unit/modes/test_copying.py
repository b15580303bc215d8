from dataclasses import replace

import msgspec
import pytest

from gateway.inference.events import Finished, Relayed, TextDelta, UsageReported
from gateway.inference.request import Sampling
from gateway.inference.usage import Usage
from gateway.modes import run as mode
from gateway.modes.copying import predicting
from gateway.policy.compiled import CascadeRule, Mode, RefineRule

from .scripted import Script, Seen, deployment, plan
from .test_score import Held

EDGE = deployment("edge", edge=True)
CLOUD = msgspec.structs.replace(deployment("cloud"), prediction=True)
PLAIN = deployment("plain")
ANSWER = [TextDelta("Paris it is."), Finished("stop"), UsageReported(Usage(input_tokens=9, output_tokens=4))]
FINAL = [
    Relayed(data=b"x", text="Paris", content=True, content_bytes=5),
    Relayed(data=b"y", finish_reason="stop"),
    UsageReported(Usage(input_tokens=9, output_tokens=5, rejected_prediction_tokens=3)),
]
NEVER = CascadeRule(threshold=1.0, target_error=None, within_s=None, accepts_uncalibrated=False)


async def run(*, kind=Mode.CASCADE, edge=ANSWER, finals=(CLOUD,), held=None, **changed):
    scripts = {"edge": Script(edge), "cloud": Script(FINAL), "plain": Script(FINAL)}
    work = plan(scripts, mode=kind, finals=list(finals), draft=EDGE, cascade=NEVER if kind is Mode.CASCADE else None)
    work = replace(work, extend_hold=held or Held(), **changed)
    await mode.run(work, Seen())
    return work, scripts


async def test_a_whole_draft_goes_along_where_it_is_taken():
    """What of it may be rejected is held, a token a byte, and what was is charged."""
    held = Held()
    work, scripts = await run(held=held)
    (call,) = scripts["cloud"].calls
    assert (call.request.prediction, call.request.prediction_bytes) == ("Paris it is.", 12)
    assert all(beside.tokens == 12 for beside in held.also)
    assert held.also[0].nanousd == -(-12 * CLOUD.price.output_worst_nanousd // 1_000_000)
    assert work.record.attempts[-1].output_tokens == 5


async def test_where_the_budget_has_no_room_it_stays_at_home():
    """The larger model is asked all the same."""
    held = Held(grants=False)
    _, scripts = await run(held=held)
    assert scripts["cloud"].calls[0].request.prediction == ""
    assert held.also[-1] is None


async def test_only_those_get_it_that_take_it():
    """A fallback that knows nothing of predictions is asked as ever."""
    _, scripts = await run(finals=(PLAIN,))
    assert scripts["plain"].calls[0].request.prediction == ""


async def test_a_draft_that_comes_too_late_stays_a_draft():
    """In draft_refine the final waits for it as long as the route says, and not at all where it says nothing."""
    slow = [0.1, *ANSWER]
    waits = RefineRule(wait_s=1.0, quantile=None, least=0.0)
    for rule, copied in ((None, ""), (replace(waits, wait_s=0.02), ""), (waits, "Paris it is.")):
        _, scripts = await run(kind=Mode.DRAFT_REFINE, edge=slow, refine=rule)
        assert scripts["cloud"].calls[0].request.prediction == copied


@pytest.mark.parametrize(
    "unfit",
    [
        {"n": 2},
        {"tools": True},
        {"logprobs": True},
        {"audio": 1},
        {"prediction_bytes": 5},
        {"surface": "completions"},
        {"native_only": ("logit_bias",)},
        {"sampling": Sampling(presence_penalty=0.5)},
        {"sampling": Sampling(frequency_penalty=0.5)},
    ],
    ids=str,
)
async def test_requests_that_take_no_prediction(unfit):
    """What OpenAI refuses beside a prediction is sent without one; the client's own is left alone."""
    request = plan({}, mode=Mode.CASCADE, finals=[CLOUD], draft=EDGE).request
    assert predicting(request, CLOUD, "x").prediction == "x"
    changed = msgspec.structs.replace(request, **unfit)
    assert predicting(changed, CLOUD, "x") is changed
