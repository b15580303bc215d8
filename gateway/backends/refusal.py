"""What the headers of a backend's error say about another try."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LONGEST_S = 86_400.0
"""A wait of more than a day is taken for one day."""
_DIGITS = re.compile(r"\d{1,12}(\.\d{1,6})?", re.ASCII)


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or an HTTP date); None when they say nothing."""
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _DIGITS.fullmatch(milliseconds):
        return min(float(milliseconds) / 1000, _LONGEST_S)
    value = headers.get("retry-after", "").strip()
    if _DIGITS.fullmatch(value):
        return min(float(value), _LONGEST_S)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    seconds = (at - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_S)


def passed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of an error that SDKs act on, as far as they are what they should be."""
    passed: dict[str, str] = {}
    if (value := headers.get("x-should-retry", "").strip().lower()) in ("true", "false"):
        passed["x-should-retry"] = value
    if _DIGITS.fullmatch(value := headers.get("retry-after-ms", "").strip()):
        passed["retry-after-ms"] = value
    return passed
