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


@pytest.mark.parametrize(
    ("written", "per", "seconds"),
    [("day", "day", 0), ("rolling 24h", "rolling 24h", 86_400), ("rolling  90m", "rolling 90m", 5_400)],
)
def test_window_of_a_budget(written: str, per: str, seconds: int):
    """A word of the calendar, or the time before now."""
    assert values.window(written) == per
    assert values.rolling_s(per) == seconds


@pytest.mark.parametrize("written", ["days", "24h", "rolling", "rolling 24", "rolling 30s", "rolling 400d", 3, None])
def test_anything_else_is_no_window(written: object):
    """A rolling window has a length, of at least a minute."""
    with pytest.raises(ValueError, match=r"expected|duration|minute"):
        values.window(written)


def test_share_that_warns():
    """A percentage over 0 and at most 100."""
    assert values.percentage("80%") == 0.8
    assert values.percentage("99.5 %") == 0.995
    for written in ("0%", "101%", "80", Decimal("0.8"), None, "-1%"):
        with pytest.raises(ValueError, match="80%"):
            values.percentage(written)


def test_time_zone():
    """A name that the database of time zones has; no path, no rubbish."""
    assert values.time_zone("Europe/Berlin") == "Europe/Berlin"
    for written in ("Mars/Olympus", "../../etc/passwd", "/etc/localtime", "x\0y"):
        with pytest.raises(ValueError, match="time zone"):
            values.time_zone(written)


def test_suggestion_is_the_nearest_name_or_a_short_list():
    """One near name is suggested; without one the first few are listed; a huge word is not compared."""
    assert suggestion("Lagre", ["large", "small"]) == "; did you mean `large`?"
    assert suggestion("xyz", ["large", "small"]) == "; there are `large`, `small`"
    assert suggestion("xyz", []) == "; there are none"
    assert suggestion("m", [f"model{number}" for number in range(99)]).endswith(" and 87 more")
    assert "did you mean" not in suggestion("large" * 100_000, ["large"])
