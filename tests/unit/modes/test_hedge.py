import asyncio
import time

import msgspec
import pytest

from gateway.backends.breaker import FAILURES_TO_OPEN
from gateway.backends.leftovers import Leftovers
from gateway.backends.observed import Observed
from gateway.errors import BackendCut, BackendRefused, BackendUnreachable
from gateway.inference.events import DraftText, Relayed, UsageReported, WholeAnswer
from gateway.inference.prediction import Prediction
from gateway.inference.usage import Usage
from gateway.modes import run as modes
from gateway.policy.compiled import HedgeRule, Mode

from .scripted import Script, Seen, deployment, plan

FOREVER = 60
A, B, C, EDGE = deployment("a"), deployment("b"), deployment("c"), deployment("edge", edge=True)
ROLE = Relayed(data=b"role\n\n")
STOP = Relayed(data=b"stop\n\n", finish_reason="stop")
USAGE = UsageReported(Usage(input_tokens=10, output_tokens=3))
SOON = HedgeRule(after_s=0.01, share=0.95, extra=0.05)
USUAL = HedgeRule(after_s=None, share=0.95, extra=0.05)


def says(text):
    return Relayed(data=text.encode() + b"\n\n", text=text, content=True, content_bytes=len(text))


def sent(request):
    """The request has been written to a connection."""
    request.record.connect_s = 0.001


def hedged(scripts, *, rule=SOON, finals=(A, B), **changes):
    work = plan(scripts, mode=Mode.HEDGE, finals=list(finals))
    fields = {"hedge": rule, "first_choices": len(finals), **changes}
    return type(work)(**{name: fields.get(name, getattr(work, name)) for name in work.__slots__})


async def run(work):
    seen = Seen()
    work.record.route = "chat"
    await modes.run(work, seen)
    return seen


def outcomes(work):
    return {tried.deployment: tried.outcome for tried in work.record.attempts}


async def test_a_late_first_is_overtaken_by_the_second():
    """The second's first content wins; the first is cancelled, and settled for the prompt that it had read."""
    a = Script([sent, ROLE, FOREVER])
    work = hedged({"a": a, "b": Script([ROLE, says("b"), STOP, USAGE])})
    seen = await run(work)
    assert [event.data for event in seen.of(Relayed)] == [b"role\n\n", b"b\n\n", b"stop\n\n"]
    assert outcomes(work) == {"a/m": "lost", "b/m": "ok"}
    assert (work.record.hedge, work.record.deployment, a.cancelled) == ("won", "b/m", 1)
    assert work.record.attempts[0].input_tokens > 0
    assert work.record.attempts[0].cost_nanousd > 0


async def test_the_first_may_still_win():
    """Whoever shows the first content answers: a second that was asked for nothing is cancelled and settled."""
    b = Script([sent, FOREVER])
    work = hedged({"a": Script([0.5, says("a"), STOP, USAGE]), "b": b})
    seen = await run(work)
    assert [event.text for event in seen.of(Relayed)] == ["a", ""]
    assert outcomes(work) == {"a/m": "ok", "b/m": "lost"}
    assert (work.record.hedge, b.cancelled) == ("lost", 1)


async def test_who_is_in_time_is_not_hedged():
    """Content before the limit: nobody else hears of the request, however long the answer then takes."""
    b = Script([says("b")])
    work = hedged({"a": Script([says("a"), 0.05, STOP]), "b": b})
    await run(work)
    assert (b.calls, work.record.hedge) == ([], "")


async def test_a_failure_before_that_time_is_an_ordinary_failover():
    """The next one is asked in its place, and that costs nothing of the extra requests."""
    work = hedged({"a": Script([BackendUnreachable("no")]), "b": Script([says("b"), STOP])})
    work.backends.extra.take("chat")
    await run(work)
    assert outcomes(work) == {"a/m": "backend_unreachable", "b/m": "ok"}
    assert work.record.hedge == ""


async def test_what_was_asked_in_its_place_is_hedged_in_turn():
    """After a failover the clock begins anew for the one that is asked now."""
    scripts = {"a": Script([BackendUnreachable("no")]), "b": Script([FOREVER]), "c": Script([says("c"), STOP])}
    work = hedged(scripts, finals=[A, B, C])
    await run(work)
    assert outcomes(work) == {"a/m": "backend_unreachable", "b/m": "lost", "c/m": "ok"}


@pytest.mark.parametrize("first", [BackendUnreachable("a"), BackendRefused("bad", status=400)])
async def test_one_that_fails_leaves_it_to_the_other(first):
    """A failure of either while both run ends nothing: the other goes on."""
    work = hedged({"a": Script([0.03, first]), "b": Script([0.1, says("b"), STOP])})
    seen = await run(work)
    assert seen.of(Relayed)[0].text == "b"
    assert work.record.hedge == "won"


async def test_both_fail():
    """When both have failed the next one is asked; when there is none, the client gets the last error."""
    scripts = {"a": Script([0.03, BackendUnreachable("a")]), "b": Script([0.03, BackendRefused("b", status=503)])}
    third = Script([says("c"), STOP])
    work = hedged({**scripts, "c": third}, finals=[A, B, C])
    await run(work)
    assert work.record.deployment == "c/m"
    with pytest.raises((BackendUnreachable, BackendRefused)):
        await run(hedged(scripts))


async def test_a_refusal_that_nobody_could_mend_is_told():
    """A 400 that came first is the client's answer when the other one fails too; no third is asked."""
    scripts = {"a": Script([0.03, BackendRefused("bad", status=400)]), "b": Script([0.06, BackendUnreachable("b")])}
    third = Script([says("c")])
    with pytest.raises(BackendRefused, match="bad"):
        await run(hedged({**scripts, "c": third}, finals=[A, B, C]))
    assert third.calls == []


async def test_a_winner_that_is_cut_is_told_so():
    """After its first content nobody takes the other one's text: it was cancelled."""
    a = Script([FOREVER])
    work = hedged({"a": a, "b": Script([says("b"), 0.01, BackendCut("cut")])})
    with pytest.raises(BackendCut):
        await run(work)
    assert a.cancelled == 1


async def test_a_client_that_leaves_stops_both():
    """Whatever ends the request ends both attempts, at once, and both are settled as cancelled."""
    a, b = Script([sent, FOREVER]), Script([sent, FOREVER])
    work = hedged({"a": a, "b": b})
    task = asyncio.create_task(run(work))
    while not b.calls:
        await asyncio.sleep(0.001)
    began = time.monotonic()
    task.cancel()
    await asyncio.wait([task])
    assert time.monotonic() - began < 1
    assert (a.cancelled, b.cancelled) == (1, 1)
    assert outcomes(work) == {"a/m": "cancelled", "b/m": "cancelled"}
    assert all(tried.cost_nanousd > 0 for tried in work.record.attempts)


async def test_answers_that_are_not_streamed_are_hedged_too():
    """The first whole answer wins."""
    whole = WholeAnswer(body=b"{}", text="b", finish_reason="stop", usage=Usage(input_tokens=1, output_tokens=1))
    work = hedged({"a": Script([FOREVER]), "b": Script([whole])})
    seen = await run(work)
    assert seen.of(WholeAnswer) == [whole]
    assert outcomes(work) == {"a/m": "lost", "b/m": "ok"}


async def test_extra_requests_are_bounded():
    """A twentieth of the requests and one: the others wait for the first, and the log says that there was no room."""
    asked = 0
    extra = None
    for _ in range(58):
        b = Script([says("b"), STOP])
        work = hedged({"a": Script([0.02, says("a"), STOP]), "b": b})
        extra = work.backends.extra = extra or work.backends.extra
        await run(work)
        asked += len(b.calls)
        assert bool(b.calls) == (work.record.hedge in {"won", "lost"})
    assert asked == 3
    assert work.record.hedge == "no_room"


async def test_no_room_in_the_tenants_budget_is_no_hedge():
    """Both at once have to fit: where they do not, the first is waited for."""

    async def only_the_first(target):
        return target is A

    b = Script([says("b")])
    work = hedged({"a": Script([0.05, says("a"), STOP]), "b": b}, extend_hold=only_the_first)
    await run(work)
    assert (b.calls, work.record.deployment) == ([], "a/m")


async def test_what_had_no_room_beside_the_first_may_follow_it():
    """The first fails later: the other is still asked, in its place, where the budget has room for that."""
    asked = []

    async def one_at_a_time(target):
        asked.append(target)
        return target is A or asked.count(B) > 1

    a = Script([0.05, BackendUnreachable("no")])
    work = hedged({"a": a, "b": Script([says("b"), STOP])}, extend_hold=one_at_a_time)
    await run(work)
    assert (work.record.deployment, work.record.attempts[-1].outcome) == ("b/m", "ok")


async def test_only_what_the_route_prefers_and_what_is_well_is_asked_beside():
    """A fallback, the edge, and a deployment whose breaker is open are no second choice."""
    cases = {"fallback": {"first_choices": 1}, "edge": {"finals": [A, EDGE]}, "open": {}}
    for case, changes in cases.items():
        other = Script([says("b")])
        work = hedged({"a": Script([0.05, says("a"), STOP]), "b": other, "edge": other}, **changes)
        if case == "open":
            for _ in range(FAILURES_TO_OPEN):
                work.backends.health.begin_anyway(B).failed(BackendUnreachable("no"))
        await run(work)
        assert other.calls == [], case


async def test_never_beside_a_draft_that_is_shown():
    """A client that already reads a draft is not worth an extra request; one that sees none yet is."""
    drafts = Script([DraftText("d", "m")])
    for drafted, calls in (("seen", 0), ("silent", 1)):
        b = Script([says("b"), STOP])
        a = Script([0.1, says("a"), STOP])
        work = hedged({"a": a, "b": b, "edge": drafts}, mode=Mode.DRAFT_REFINE)
        work.record.draft_ttft_s = 0.01 if drafted == "seen" else None
        await run(work)
        assert len(b.calls) == calls, drafted


def usual(name, seconds, times=100):
    """What was seen of a deployment."""
    now = [0.0]
    observed = Observed(lambda: now[0])
    for _ in range(times):
        begun = observed.begun(name, 10)
        now[0] += seconds
        observed.first_token(begun)
        observed.ended(begun, per_token_s=None, output_tokens=None)
    return observed


async def test_late_is_what_is_late_for_that_deployment():
    """One that is always slow is not hedged at a time that would be late for a quick one."""
    for seconds, calls in ((0.01, 1), (5.0, 0)):
        b = Script([says("b"), STOP])
        work = hedged({"a": Script([0.1, says("a"), STOP]), "b": b}, rule=USUAL, observed=usual("a/m", seconds))
        await run(work)
        assert len(b.calls) == calls


async def test_until_it_is_known_twice_what_policy_expects_is_late():
    """`expect` stands in for what was not seen yet; without it, a default that is never quick."""
    for expected, calls in ((0.01, 1), (None, 0)):
        observed = Observed(time.monotonic)
        if expected is not None:
            observed.expect({"a/m": Prediction(first_token_s=expected, per_token_s=0.01)})
        b = Script([says("b"), STOP])
        work = hedged({"a": Script([0.1, says("a"), STOP]), "b": b}, rule=USUAL, observed=observed)
        await run(work)
        assert len(b.calls) == calls


class Together(Script):
    """Begins to answer in the same turn of the loop as others."""

    def __init__(self, go, steps):
        super().__init__(steps)
        self.go = go

    async def answer(self, call, emit):
        sent(call)
        self.go.began = getattr(self.go, "began", 0) + 1
        if self.go.began == 2:
            asyncio.get_running_loop().call_later(0.02, self.go.set)
        await self.go.wait()
        await super().answer(call, emit)


def read_on(found):
    return msgspec.structs.replace(found, backend=msgspec.structs.replace(found.backend, read_on_s=5.0))


async def test_of_two_that_are_read_on_only_one_is_shown():
    """Both have content in the same turn of the loop: the loser's is counted, and never shown."""
    go = asyncio.Event()
    scripts = {name: Together(go, [says(name), says(name), STOP]) for name in ("a", "b")}
    work = hedged(scripts, finals=(read_on(A), read_on(B)))
    work.backends.leftovers = Leftovers()
    seen = await run(work)
    assert len({event.text for event in seen.of(Relayed) if event.text}) == 1
    assert len(seen.of(Relayed)) == 3
    winner = next(tried for tried in work.record.attempts if tried.outcome == "ok")
    assert work.record.deployment == winner.deployment


async def test_what_a_loser_goes_on_to_say_is_charged():
    """It is read on, and its backend counts nothing: what came of it is estimated when it is over."""
    scripts = {"a": Script([sent, 0.1, says("a" * 400), STOP]), "b": Script([says("b"), STOP, USAGE])}
    work = hedged(scripts, finals=(read_on(A), B))
    work.backends.leftovers = Leftovers()
    await run(work)
    lost = work.record.attempts[0]
    assert (lost.outcome, lost.output_tokens) == ("lost", 0)
    await asyncio.wait(work.reading_on, timeout=2)
    await asyncio.sleep(0)
    assert lost.output_tokens > 50
