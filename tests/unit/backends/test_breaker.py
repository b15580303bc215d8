from __future__ import annotations

import pytest

from gateway.backends.breaker import FAILURES_TO_OPEN, FIRST_OPEN_S, LONGEST_S, Breaker


def fail(breaker: Breaker, now: float, times: int = FAILURES_TO_OPEN) -> None:
    for _ in range(times):
        breaker.failed(breaker.begin(now), now)


@pytest.fixture
def breaker() -> Breaker:
    return Breaker()


def test_it_opens_after_failures_in_a_row(breaker: Breaker):
    """One failure less than enough opens nothing, and an answer that ends well begins the count anew."""
    fail(breaker, 0, FAILURES_TO_OPEN - 1)
    assert breaker.accepts(0)
    breaker.succeeded(breaker.begin(0))
    fail(breaker, 0, FAILURES_TO_OPEN - 1)
    assert breaker.state(0) == "closed"
    fail(breaker, 0, 1)
    assert breaker.state(0) == "open"


def test_a_key_that_is_not_taken_opens_at_once(breaker: Breaker):
    """What would fail the next time as well is not tried four more times."""
    breaker.failed(breaker.begin(0), 0, at_once=True)
    assert not breaker.accepts(0)


def test_one_probe_at_a_time(breaker: Breaker):
    """After the open time one attempt is welcome; the next one only when that has come to nothing."""
    fail(breaker, 0)
    assert not breaker.accepts(FIRST_OPEN_S - 0.01)
    assert breaker.accepts(FIRST_OPEN_S)
    probe = breaker.begin(FIRST_OPEN_S)
    assert probe.is_probe
    assert not breaker.accepts(FIRST_OPEN_S + 1)
    assert not breaker.begin(FIRST_OPEN_S + 1).is_probe
    breaker.given_up(probe)
    assert breaker.accepts(FIRST_OPEN_S + 1)


def test_each_failed_probe_doubles_the_time_up_to_a_limit(breaker: Breaker):
    """10, 20, 40 … 300 seconds; an answer that ends well begins at 10 again."""
    now, waits = 0.0, []
    fail(breaker, now)
    for _ in range(7):
        at = breaker.changes_at(now)
        waits.append(at - now)
        now = at
        breaker.failed(breaker.begin(now), now)
    assert waits == [10, 20, 40, 80, 160, LONGEST_S, LONGEST_S]
    now = breaker.changes_at(now)
    breaker.succeeded(breaker.begin(now))
    fail(breaker, now)
    assert breaker.changes_at(now) - now == FIRST_OPEN_S


def test_an_answer_that_begins_closes_on_trial(breaker: Breaker):
    """The probe's first content lets others in; if it is cut after all, one failure is enough."""
    fail(breaker, 0)
    probe = breaker.begin(10)
    breaker.answers(probe)
    assert breaker.accepts(10)
    breaker.failed(probe, 11)
    assert breaker.state(11) == "open"
    assert breaker.changes_at(11) - 11 == 2 * FIRST_OPEN_S


def test_attempts_from_before_the_opening_say_nothing(breaker: Breaker):
    """A long answer that began in good times does not close it, nor does one that fails late open it further."""
    old, older = breaker.begin(0), breaker.begin(0)
    fail(breaker, 0)
    breaker.succeeded(old)
    breaker.answers(older)
    breaker.failed(older, 1)
    assert breaker.state(1) == "open"
    assert breaker.changes_at(1) == FIRST_OPEN_S


def test_those_who_have_no_choice_may_close_it_and_never_keep_it_open(breaker: Breaker):
    """Attempts while it is open: failures change nothing, an answer that ends well closes it."""
    fail(breaker, 0)
    fail(breaker, 5, 50)
    assert breaker.changes_at(5) == FIRST_OPEN_S
    breaker.succeeded(breaker.begin(6))
    assert breaker.state(6) == "closed"


def test_a_request_for_time_is_a_pause_and_no_failure(breaker: Breaker):
    """It lasts as long as was asked, five minutes at most, and leaves no count."""
    fail(breaker, 0, FAILURES_TO_OPEN - 1)
    breaker.asked_for_time(breaker.begin(0), 0, 7)
    assert breaker.state(6.9) == "paused"
    assert breaker.pause_left_s(2) == 5
    assert breaker.state(7) == "closed"
    breaker.asked_for_time(breaker.begin(7), 7, 86_400)
    assert breaker.changes_at(7) == 7 + LONGEST_S


def test_somebody_who_sees_it_work_shortens_the_wait(breaker: Breaker):
    """After a good check the probe may come at once."""
    fail(breaker, 0)
    breaker.look_again(3)
    assert breaker.state(3) == "half_open"
