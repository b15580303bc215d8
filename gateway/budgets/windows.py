"""When calendar windows begin, in any time zone. Pure: which second it is, is the store's to say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_LENGTH_S = {"minute": 60, "hour": 3_600}


@lru_cache(maxsize=1_024)
def window(per: str, zone: str, at_s: int) -> tuple[int, int]:
    """First second of the window that has the second `at_s`, and of the next one; Unix time.

    Minutes and hours are the clock's on the wall, days begin at its midnight or, where summer time skips that, with
    the first second there is. All days of a zone so have 23 to 25 hours.
    """
    local = datetime.fromtimestamp(at_s, UTC if zone == "UTC" else ZoneInfo(zone))
    length_s = _LENGTH_S.get(per)
    if length_s is not None:
        offset_s = int((local.utcoffset() or timedelta()).total_seconds())
        start = at_s - (at_s + offset_s) % length_s
        return start, start + length_s
    day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if per == "week":
        first = day - timedelta(days=day.weekday())
        following = first + timedelta(days=7)
    elif per == "month":
        first = day.replace(day=1)
        following = (first + timedelta(days=32)).replace(day=1)
    else:
        first, following = day, day + timedelta(days=1)
    return int(first.timestamp()), int(following.timestamp())


def windows(per: str, zone: str, at_s: int) -> tuple[int, int, int]:
    """Start of the window that has `at_s`, of the next one, and of the one after."""
    start, following = window(per, zone, at_s)
    return start, following, window(per, zone, following)[1]
