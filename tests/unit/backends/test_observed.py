"""Predictions from what attempts took."""

from __future__ import annotations

import pytest

from gateway.backends.observed import Observed
from gateway.inference.prediction import Prediction


class Clock:
    """Seconds, moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def observed(clock: Clock) -> Observed:
    return Observed(clock)


def serve(observed: Observed, clock: Clock, name: str, seconds: float, *, prompt_tokens: int = 500) -> None:
    """One attempt whose first token takes `seconds`, and ten more a tenth of a second each."""
    begun = observed.begun(name, prompt_tokens)
    clock.now += seconds
    observed.first_token(begun)
    clock.now += 1.0
    observed.ended(begun, per_token_s=0.1, output_tokens=11)


def first_s(observed: Observed, name: str, prompt_tokens: int = 500) -> float:
    return observed.predictions(prompt_tokens)[name].first_token_s


def test_nothing_is_predicted_of_what_was_never_asked(observed: Observed, clock: Clock):
    """What policy expects is the prediction until there is a measurement; without either there is none."""
    assert observed.predictions(100) == {}
    expected = {"a": Prediction(first_token_s=0.8, per_token_s=0.02)}
    observed.expect(expected)
    assert observed.predictions(100) == expected
    serve(observed, clock, "a", 3.0)
    assert first_s(observed, "a") > 2.5


def test_slow_answer_counts_at_once_and_a_quick_one_slowly(observed: Observed, clock: Clock):
    """The average is sensitive to peaks."""
    for _ in range(10):
        serve(observed, clock, "a", 1.0)
    usual = first_s(observed, "a")
    serve(observed, clock, "a", 5.0)
    after_peak = first_s(observed, "a")
    assert after_peak - usual > 1.5
    serve(observed, clock, "a", 1.0)
    assert after_peak - first_s(observed, "a") < 0.5 * (after_peak - usual)


def test_idle_deployment_drifts_back_to_what_is_expected(observed: Observed, clock: Clock):
    """After a bad time nobody asks it; it is predicted better as time goes by, and so tried again."""
    for _ in range(3):
        serve(observed, clock, "a", 0.5)
    for _ in range(6):
        serve(observed, clock, "a", 8.0)
    bad = first_s(observed, "a")
    clock.now += 20.0
    better = first_s(observed, "a")
    clock.now += 200.0
    assert bad > better > first_s(observed, "a")
    assert first_s(observed, "a") < 0.5 * bad


def test_long_prompts_are_predicted_apart_from_short_ones(observed: Observed, clock: Clock):
    """Prompts of different lengths have averages of their own; a length without one borrows the nearest."""
    serve(observed, clock, "a", 0.2, prompt_tokens=100)
    serve(observed, clock, "a", 4.0, prompt_tokens=10_000)
    assert first_s(observed, "a", 100) == pytest.approx(0.2, rel=0.1)
    assert first_s(observed, "a", 10_000) == pytest.approx(4.0, rel=0.1)
    assert first_s(observed, "a", 100_000) == first_s(observed, "a", 10_000)


def test_prompts_that_wait_there_make_it_slower(observed: Observed, clock: Clock):
    """In-flight tokens count until the first token, or the end, whichever comes first; then no more."""
    for _ in range(5):
        serve(observed, clock, "a", 1.0)
    alone = first_s(observed, "a")
    waiting = [observed.begun("a", 500) for _ in range(4)]
    assert observed.predictions(500)["a"].in_flight_tokens == 2_000
    assert first_s(observed, "a") > 4 * alone
    observed.first_token(waiting[0])
    for attempt in waiting:
        observed.ended(attempt, per_token_s=None, output_tokens=None)
    assert observed.predictions(500)["a"].in_flight_tokens == 0


def test_predictions_that_were_given_out_never_change(observed: Observed, clock: Clock):
    """A decision keeps the numbers that it was made from."""
    serve(observed, clock, "a", 1.0)
    given = observed.predictions(500)
    before = dict(given)
    serve(observed, clock, "a", 9.0)
    assert given == before
    assert observed.predictions(500)["a"] != before["a"]
    assert observed.predictions(500)["a"].output_tokens == pytest.approx(11)


def test_what_is_usual_for_a_deployment(observed: Observed, clock: Clock):
    """Its p95 for prompts of that length, streamed and not apart; unknown until enough was seen."""
    for _ in range(20):
        assert observed.usual_s("a", 500, stream=True, share=0.95) is None
        serve(observed, clock, "a", 2.0)
    assert 2.0 <= observed.usual_s("a", 500, stream=True, share=0.95) < 2.2
    assert observed.usual_s("a", 500, stream=False, share=0.95) is None
    assert observed.usual_s("a", 50_000, stream=True, share=0.95) is None


def test_a_first_token_that_never_came_counts_where_it_was_long(observed: Observed, clock: Clock):
    """An attempt that was given up after a long wait is news; one that failed at once says nothing of the time."""
    for seconds in (*[0.01] * 50, *[2.0] * 50):
        begun = observed.begun("a", 500)
        clock.now += seconds
        observed.ended(begun, per_token_s=None, output_tokens=None)
    assert observed.usual_s("a", 500, stream=True, share=0.5) is None, "nothing was ever seen"
    for _ in range(40):
        serve(observed, clock, "a", 1.0)
    usual = observed.usual_s("a", 500, stream=True, share=0.5)
    for seconds in (*[0.01] * 50, *[9.0] * 60):
        begun = observed.begun("a", 500)
        clock.now += seconds
        observed.ended(begun, per_token_s=None, output_tokens=None)
    assert observed.usual_s("a", 500, stream=True, share=0.5) > 5 * usual
    assert first_s(observed, "a") > 5
