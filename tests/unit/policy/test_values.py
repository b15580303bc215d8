"""Single values: units, bounds, and words for what is wrong."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gateway.policy import values
from gateway.policy.mistakes import suggestion


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("1500ms", 1.5), ("2s", 2.0), ("0.5s", 0.5), ("5m", 300.0), ("1h", 3600.0), ("1d", 86400.0)],
)
def test_duration_has_a_unit(written: str, seconds: float):
    """ms, s, m, h and d are understood."""
    assert values.duration_s(written) == seconds


@pytest.mark.parametrize("written", ["2", "s", "-1s", "1 s", "1e3s", "0ms", "367d", "9" * 30 + "s", 3, True, None, []])
def test_anything_else_is_no_duration(written: object):
    """Without a unit, below or at 0, or too long: refused."""
    with pytest.raises(ValueError, match=r"duration|unit"):
        values.duration_s(written)


@pytest.mark.parametrize(
    ("dollars", "nano"), [(Decimal("0.1"), 100_000_000), (2, 2_000_000_000), (Decimal("0.000000001"), 1), (0, 0)]
)
def test_dollars_are_exact(dollars: object, nano: int):
    """No float stands between what is written and nano-dollars."""
    assert values.nanousd(dollars) == nano


@pytest.mark.parametrize("written", [True, "1", -1, 10**10, Decimal("0.0000000001"), None])
def test_anything_else_is_no_amount(written: object):
    """Texts, booleans, negatives and fractions of a nano-dollar are refused."""
    with pytest.raises(ValueError, match="dollar"):
        values.nanousd(written)


def test_suggestion_is_the_nearest_name_or_a_short_list():
    """One near name is suggested; without one the first few are listed; a huge word is not compared."""
    assert suggestion("Lagre", ["large", "small"]) == "; did you mean `large`?"
    assert suggestion("xyz", ["large", "small"]) == "; there is `large`, `small`"
    assert suggestion("xyz", []) == "; there are none"
    assert suggestion("m", [f"model{number}" for number in range(99)]).endswith(" and 87 more")
    assert "did you mean" not in suggestion("large" * 100_000, ["large"])
