"""Calendar windows in zones with every kind of oddity."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.budgets.windows import window, windows

ZONES = ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]
PERS = ["minute", "hour", "day", "week", "month"]
UNTIL_2100_S = 4_102_444_800


def at(text: str, zone: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


@given(per=st.sampled_from(PERS), zone=st.sampled_from(ZONES), now_s=st.integers(86_400 * 800, UNTIL_2100_S))
def test_windows_have_no_gaps(per, zone, now_s):
    """Each second is in its window, the next window begins where it ends, and all its seconds agree on it."""
    start, following, after = windows(per, zone, now_s)
    assert start <= now_s < following < after
    assert window(per, zone, start)[0] == start
    assert window(per, zone, following)[0] == following


@given(zone=st.sampled_from(ZONES), per=st.sampled_from(PERS), now_s=st.integers(86_400 * 800, UNTIL_2100_S))
def test_windows_begin_when_the_calendar_says(zone, per, now_s):
    """A day begins at the first second of its date, a week on Monday, a month on its first."""
    start, following = window(per, zone, now_s)
    before, first = (datetime.fromtimestamp(second, ZoneInfo(zone)) for second in (start - 1, start))
    if per in {"day", "week", "month"}:
        assert before.date() < first.date()
        last = datetime.fromtimestamp(following - 1, ZoneInfo(zone))
        assert {"day": first.date() == last.date(), "week": first.weekday() == 0, "month": first.day == 1}[per]
    else:
        assert first.second == 0


@pytest.mark.parametrize(
    ("per", "zone", "now", "start", "hours"),
    [
        ("day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-29T00:00", 23),
        ("day", "Europe/Berlin", "2026-10-25T12:00", "2026-10-25T00:00", 25),
        ("day", "America/Sao_Paulo", "2018-11-04T12:00", "2018-11-04T01:00", 23),  # midnight was skipped
        ("week", "Europe/Berlin", "2026-11-29T23:59", "2026-11-23T00:00", 168),
        ("month", "Pacific/Auckland", "2026-02-28T23:59", "2026-02-01T00:00", 28 * 24),
        ("hour", "Asia/Kolkata", "2026-01-01T10:59", "2026-01-01T10:00", 1),
    ],
)
def test_days_of_summer_time(per, zone, now, start, hours):
    """Days have the hours that their zone gives them."""
    found = window(per, zone, at(now, zone))
    assert found == (at(start, zone), at(start, zone) + hours * 3600)


def test_utc_is_known_without_a_database(monkeypatch):
    """The default needs no file of the system's."""
    monkeypatch.setattr("gateway.budgets.windows.ZoneInfo", None)
    now = datetime(2031, 7, 5, 3, 4, 5, tzinfo=UTC)
    assert window("month", "UTC", int(now.timestamp()))[0] == int(datetime(2031, 7, 1, tzinfo=UTC).timestamp())


@given(zone=st.sampled_from(ZONES), per=st.sampled_from(["day", "week", "month"]), now_s=st.integers(0, UNTIL_2100_S))
def test_a_window_begins_long_after_the_one_before(zone, per, now_s):
    """At least 4/5 of its length: the scripts take what began later than that for the same window in another zone."""
    start, following = window(per, zone, now_s)
    assert start - window(per, zone, start - 1)[0] >= 0.8 * (following - start)
