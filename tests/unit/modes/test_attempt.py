import asyncio

import msgspec
import pytest

from gateway.backends.breaker import FAILURES_TO_OPEN
from gateway.errors import BackendCut, BackendRefused, BackendUnreachable, EdgeUnsuitable
from gateway.inference.events import Relayed, TextDelta, UsageReported
from gateway.inference.usage import Usage
from gateway.modes import attempt
from gateway.policy.compiled import Mode

from .scripted import Script, Seen, deployment, plan

ROLE = Relayed(data=b"role\n\n")
HELLO = Relayed(data=b"hello\n\n", text="hello", content=True, content_bytes=5)
STOP = Relayed(data=b"stop\n\n", finish_reason="stop")
USAGE = UsageReported(Usage(input_tokens=10, output_tokens=3))
A, B, C = deployment("a"), deployment("b"), deployment("c")


async def run(scripts, finals):
    seen = Seen()
    work = plan(scripts, mode=Mode.CLOUD_ONLY, finals=finals)
    await attempt.answer(work, finals, seen)
    return work.record, seen


async def test_the_second_deployment_answers_when_the_first_refuses_connections():
    """A retryable failure before the first content moves on to the next deployment."""
    record, seen = await run({"a": Script([BackendUnreachable("no")]), "b": Script([HELLO, STOP, USAGE])}, [A, B])
    assert record.deployment == "b/m"
    assert [tried.outcome for tried in record.attempts] == ["backend_unreachable", "ok"]
    assert seen.of(Relayed) == [HELLO, STOP]


async def test_operators_are_told_why_a_backend_failed_and_its_tenant_is_not():
    """The system's own words, with the address, are for the log; what a backend says is for nobody: it may quote."""
    unreachable = BackendUnreachable("a/m could not be reached")
    unreachable.__cause__ = OSError(111, "refused by 10.0.0.7")
    refused = BackendRefused("your prompt was: secret", status=500)
    record, _ = await run({"a": Script([unreachable]), "b": Script([refused]), "c": Script([HELLO, STOP])}, [A, B, C])
    first, second, third = record.fields()["attempts"]
    assert "10.0.0.7" in first["detail"]
    assert "detail" not in second
    assert "detail" not in third
    assert "10.0.0.7" not in str(record.told_to_tenant())


async def test_a_role_alone_is_held_back_so_that_failing_over_stays_invisible():
    """Events without content wait: the client sees one answer, from one deployment."""
    record, seen = await run({"a": Script([ROLE, BackendCut("cut")]), "b": Script([ROLE, HELLO, STOP])}, [A, B])
    assert record.deployment == "b/m"
    assert seen.of(Relayed) == [ROLE, HELLO, STOP]


async def test_after_the_first_content_nobody_retries():
    """A cut in mid-answer is told, not papered over by another deployment's text."""
    b = Script([HELLO])
    with pytest.raises(BackendCut):
        await run({"a": Script([HELLO, BackendCut("cut")]), "b": b}, [A, B])
    assert b.calls == []


async def test_a_refusal_that_no_retry_can_mend_is_final():
    """A 400 of the first deployment is the client's answer; the second is not asked."""
    b = Script([HELLO])
    with pytest.raises(BackendRefused):
        await run({"a": Script([BackendRefused("bad", status=400)]), "b": b}, [A, B])
    assert b.calls == []


async def test_the_last_error_is_told_when_all_fail():
    """Every deployment is tried once, and the last failure is raised."""
    with pytest.raises(BackendRefused) as failure:
        await run({"a": Script([BackendUnreachable("a")]), "b": Script([BackendRefused("b", status=503)])}, [A, B])
    assert failure.value.status == 503


async def test_usage_that_a_backend_keeps_to_itself_is_estimated():
    """Without a usage event one is made, and marked as estimated."""
    record, seen = await run({"a": Script([HELLO, STOP])}, [A])
    (reported,) = seen.of(UsageReported)
    assert reported.usage.estimated
    assert record.attempts[0].output_tokens == 2


async def test_a_cancelled_attempt_is_charged_for_what_was_received():
    """A client that leaves pays for the input and for the text it got."""
    seen, scripts = Seen(), {"a": Script([HELLO, HELLO, 60])}
    work = plan(scripts, mode=Mode.CLOUD_ONLY, finals=[A])
    task = asyncio.create_task(attempt.answer(work, [A], seen))
    await seen.until(2)
    task.cancel()
    await asyncio.wait([task])
    (tried,) = work.record.attempts
    assert tried.outcome == "cancelled"
    assert (tried.output_tokens, tried.estimated) == (4, True)
    assert tried.cost_nanousd > 0


class Counting(Script):
    """A backend whose usage came with a chunk, before it was cut or left."""

    async def answer(self, call, emit):
        call.record.usage = Usage(input_tokens=90, output_tokens=700)
        await super().answer(call, emit)


async def test_what_the_backend_has_counted_is_booked_however_it_ends():
    """Usage that came before a cut is charged, not an estimate of less."""
    seen, scripts = Seen(), {"a": Counting([HELLO, BackendCut("cut")])}
    work = plan(scripts, mode=Mode.CLOUD_ONLY, finals=[A])
    with pytest.raises(BackendCut):
        await attempt.answer(work, [A], seen)
    (tried,) = work.record.attempts
    assert (tried.input_tokens, tried.output_tokens, tried.estimated) == (90, 700, False)


@pytest.mark.parametrize(
    ("context_tokens", "max_tokens", "said", "booked"),
    [
        (None, 100, (90, 100), (90, 100, False)),
        (None, 100, (10**12, 50), (120, 50, True)),  # 40 bytes of prompt, and its template
        (1_000, 100, (900, 50), (900, 50, False)),  # this backend adds to prompts by itself
        (1_000, 100, (10**12, 50), (1_000, 50, True)),
        (None, 100, (90, 10**12), (90, 100, True)),
        (None, 2, (90, 10**12), (90, 5, True)),  # it sent more than it was asked for: five bytes
        (None, None, (90, 10**6), (90, 10**6, False)),  # nobody counts them, nobody said how many
    ],
)
async def test_usage_that_cannot_be_true(context_tokens, max_tokens, said, booked):
    """What a backend counts is booked as far as what it was sent, was asked for, and sent can explain it."""
    usage = UsageReported(Usage(input_tokens=said[0], output_tokens=said[1]))
    target = msgspec.structs.replace(A, context_tokens=context_tokens)
    work = plan({"a": Script([HELLO, STOP, usage])}, mode=Mode.CLOUD_ONLY, finals=[target], max_tokens=max_tokens)
    await attempt.answer(work, [target], Seen())
    (tried,) = work.record.attempts
    assert (tried.input_tokens, tried.output_tokens, tried.estimated) == booked


async def test_the_edge_that_is_too_small_passes_the_request_on():
    """A prompt longer than the edge's context goes to the next deployment."""
    record, _ = await run({"a": Script([EdgeUnsuitable("too long")]), "b": Script([HELLO, STOP])}, [A, B])
    assert record.deployment == "b/m"


async def test_a_backends_trouble_outranks_the_edges_size():
    """When the backend is down and the edge too small, the client is told of the backend: it may try again."""
    with pytest.raises(BackendUnreachable):
        await run({"a": Script([BackendUnreachable("down")]), "b": Script([EdgeUnsuitable("too long")])}, [A, B])


async def test_a_prompt_that_was_read_for_nothing_is_charged():
    """A client that leaves after the request was sent pays for the input, one that waited in a queue does not."""
    for connect_s, charged in ((0.001, True), (None, False)):
        scripts = {"a": Script([60])}
        work = plan(scripts, mode=Mode.CLOUD_ONLY, finals=[A])
        task = asyncio.create_task(attempt.answer(work, [A], Seen()))
        await asyncio.sleep(0.01)
        work.record.attempts[0].connect_s = connect_s
        task.cancel()
        await asyncio.wait([task])
        assert (work.record.attempts[0].cost_nanousd > 0) is charged


async def test_a_failure_before_any_content_costs_nothing():
    """A backend that refused used no tokens."""
    record, _ = await run({"a": Script([BackendRefused("b", status=500)]), "b": Script([TextDelta("x")])}, [A, B])
    assert record.attempts[0].cost_nanousd == 0


async def test_what_fails_again_and_again_is_passed_over_and_still_the_last_resort():
    """An open breaker puts a deployment behind all others; when those fail too, it is asked all the same."""
    a, b = Script([BackendUnreachable("no")]), Script([BackendUnreachable("no")])
    work = plan({"a": a, "b": b}, mode=Mode.CLOUD_ONLY, finals=[A, B])
    for _ in range(FAILURES_TO_OPEN):
        work.backends.health.begin_anyway(A).failed(BackendUnreachable("no"))
    with pytest.raises(BackendUnreachable):
        await attempt.answer(work, [A, B], Seen())
    assert [tried.deployment for tried in work.record.attempts][:2] == ["b/m", "a/m"]


async def test_a_backend_that_asked_for_time_is_not_called_before():
    """While `retry-after` lasts nobody calls, even if nothing else is left: the client gets the backend's own word."""
    a = Script([BackendRefused("slow", status=429, retry_after_s=30.0)])
    work = plan({"a": a}, mode=Mode.CLOUD_ONLY, finals=[A])
    for _ in range(3):
        with pytest.raises(BackendRefused) as refused:
            await attempt.answer(work, [A], Seen())
    assert len(a.calls) == 1
    assert refused.value.status == 429
    assert 29 < refused.value.retry_after_s <= 30
    assert [tried.outcome for tried in work.record.attempts] == ["backend_error", "paused", "paused"]


async def test_the_only_deployment_is_tried_once_more():
    """Where no other is left, what failed for a reason that passes gets one more try."""
    a = Script([BackendUnreachable("reset")])
    with pytest.raises(BackendUnreachable):
        await run({"a": a}, [A])
    assert len(a.calls) == 2


async def test_the_policys_retries_come_before_the_next_deployment():
    """With `retries: 2` a deployment has three tries, then the next is asked; with 0 it has one."""
    for retries, calls in ((2, 3), (0, 1)):
        backend = msgspec.structs.replace(A.backend, retries=retries)
        first = msgspec.structs.replace(A, backend=backend)
        a = Script([BackendRefused("500", status=500)])
        record, _ = await run({"a": a, "b": Script([HELLO, STOP])}, [first, B])
        assert len(a.calls) == calls
        assert record.deployment == "b/m"


async def test_a_backend_that_sends_nothing_but_metadata_is_given_up():
    """What waits for the first content is bounded: it is no way to fill the gateway's memory."""
    noise = Relayed(data=b"x" * 100_000)
    record, _ = await run({"a": Script([noise] * 20), "b": Script([HELLO, STOP])}, [A, B])
    assert [tried.outcome for tried in record.attempts] == ["backend_invalid_response", "ok"]
