from __future__ import annotations

import random

from gateway.backends.gradient import FIRST_LIMIT, Gradient


def serve(gradient: Gradient, capacity: int, answers: int, *, demand: int = 1_000, seed: int = 1) -> None:
    """A backend that reads prompts for `capacity` requests at once without delay, and slower the more there are."""
    draw = random.Random(seed)
    for _ in range(answers):
        in_flight = min(gradient.limit, demand)
        tokens = draw.randint(50, 2_000)
        seconds = 0.0002 * (tokens + 200) * max(1.0, in_flight / capacity) * draw.uniform(0.8, 1.25)
        gradient.add(seconds, tokens, in_flight)


def test_it_grows_while_prompts_do_not_wait():
    """With nothing in the way the bound of policy is reached, and never passed."""
    gradient = Gradient(100)
    serve(gradient, 1_000, 500)
    assert gradient.limit == 100


def test_it_stops_where_prompts_begin_to_wait():
    """Near what the backend can do at once: not a fraction of it, and not several times as much."""
    gradient = Gradient(1_000)
    serve(gradient, 40, 3_000)
    assert 30 <= gradient.limit <= 120


def test_it_follows_a_backend_that_can_do_less():
    """Half the capacity: the limit comes down."""
    gradient = Gradient(1_000)
    serve(gradient, 60, 3_000)
    before = gradient.limit
    serve(gradient, 15, 300)
    assert gradient.limit < before * 0.7


def test_what_is_not_used_says_nothing():
    """A quiet night does not make the limit grow."""
    gradient = Gradient(1_000)
    serve(gradient, 1_000, 500, demand=3)
    assert gradient.limit == FIRST_LIMIT


def test_refusals_take_a_tenth_off_and_leave_one():
    """A backend that says that it is too busy gets less, but never nothing."""
    gradient = Gradient(1_000)
    gradient.refused()
    assert gradient.limit == 18
    for _ in range(200):
        gradient.refused()
    assert gradient.limit == 1
