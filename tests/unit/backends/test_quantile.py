import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.quantile import Quantile


@given(st.lists(st.floats(0.001, 1_000), min_size=20, max_size=400), st.sampled_from([0.5, 0.9, 0.95]))
def test_it_is_near_the_true_one(values, share):
    """At least the exact quantile, and at most 5 % above it."""
    quantile = Quantile()
    for value in values:
        quantile.add(value)
    exact = sorted(values)[max(0, -int(-len(values) * share // 1) - 1)]
    found = quantile.at(share)
    assert exact * 0.999 <= found <= exact * 1.051


def test_too_few_say_nothing():
    """A p95 takes twenty values."""
    quantile = Quantile()
    for _ in range(19):
        quantile.add(1.0)
    assert quantile.at(0.95) is None
    quantile.add(1.0)
    assert quantile.at(0.95) == pytest.approx(1.0, rel=0.06)


def test_it_forgets():
    """A deployment that became ten times slower is known as such after some hundred answers, in constant space."""
    quantile = Quantile()
    draw = random.Random(1)
    for _ in range(5_000):
        quantile.add(draw.uniform(0.05, 0.15))
    for _ in range(1_000):
        quantile.add(draw.uniform(0.5, 1.5))
    assert quantile.at(0.5) > 0.5
    assert len(quantile._counts) <= 331


def test_nonsense_is_kept_in_bounds():
    """No time at all and a time of years have a bucket too."""
    quantile = Quantile()
    for value in (0.0, 1e12) * 20:
        quantile.add(value)
    assert quantile.at(0.5) == pytest.approx(0.001)
