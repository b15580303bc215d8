"""What error headers say about another try."""

from datetime import UTC, datetime

import pytest

from gateway.backends.refusal import passed_headers, retry_after_s

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "Sun, 22 Nov 2026 12:01:30 GMT"}, 90.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "99999999"}, 86_400.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "٧"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers, expected):
    """Seconds, milliseconds and HTTP dates are read; nonsense says nothing, a very long wait is one day."""
    assert retry_after_s(headers, now=NOW) == expected


def test_only_valid_headers_are_passed():
    """`x-should-retry` and `retry-after-ms` are passed if they are what SDKs expect."""
    assert passed_headers({"x-should-retry": "TRUE", "retry-after-ms": "12"}) == {
        "x-should-retry": "true",
        "retry-after-ms": "12",
    }
    assert passed_headers({"x-should-retry": "maybe", "retry-after-ms": "x"}) == {}
