import pytest

from gateway.errors import InvalidRequest
from gateway.retrieval.filters import read_filter

FACTS = {"source": "leave.md", "year": 2026, "public": True}


def eq(key, value, kind="eq"):
    return {"type": kind, "key": key, "value": value}


MATCHES = {
    "equal": (eq("source", "leave.md"), True),
    "another text": (eq("source", "pay.md"), False),
    "greater": (eq("year", 2025, "gt"), True),
    "at least": (eq("year", 2026, "gte"), True),
    "less": (eq("year", 2026, "lt"), False),
    "at most, as a float": (eq("year", 2026.0, "lte"), True),
    "one of": (eq("source", ["pay.md", "leave.md"], "in"), True),
    "none of": (eq("source", ["pay.md"], "nin"), True),
    "not equal": (eq("source", "leave.md", "ne"), False),
    "a text against a number": (eq("year", "2026"), False),
    "order between kinds": (eq("year", "2025", "gt"), False),
    "a boolean is no number": (eq("public", 1), False),
    "a boolean": (eq("public", True), True),
    "what is not there": (eq("owner", "x"), False),
    "what is not there is not equal": (eq("owner", "x", "ne"), True),
    "what is not there has no order": (eq("owner", 1, "lt"), False),
    "and": ({"type": "and", "filters": [eq("year", 2026), eq("public", False)]}, False),
    "or": ({"type": "or", "filters": [eq("year", 2026), eq("public", False)]}, True),
}


@pytest.mark.parametrize(("value", "expected"), MATCHES.values(), ids=MATCHES)
def test_filters(value, expected):
    """Comparisons and their combinations, as OpenAI's vector stores have them."""
    assert read_filter(value)(FACTS) is expected


def nested(depth):
    value = eq("a", 1)
    for _ in range(depth):
        value = {"type": "and", "filters": [value]}
    return value


WRONG = {
    "no object": [],
    "no type": {"key": "a", "value": 1},
    "another type": eq("a", 1, "like"),
    "no key": {"type": "eq", "value": 1},
    "a list for one": eq("a", [1]),
    "one for a list": eq("a", 1, "in"),
    "an object for a value": eq("a", {}),
    "null": eq("a", None),
    "and of nothing": {"type": "and", "filters": []},
    "too deep": nested(20),
    "too many": {"type": "or", "filters": [eq("a", 1)] * 100},
    "too many values": eq("a", ["x"] * 100, "in"),
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_wrong_filters(value):
    """What is no filter is refused with the place."""
    with pytest.raises(InvalidRequest) as told:
        read_filter(value)
    assert told.value.param.startswith("filters")
