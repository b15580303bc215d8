"""Filters of a search, in the shape of OpenAI's vector stores: comparisons, joined by `and` and `or`.

    {"type": "eq", "key": "source", "value": "leave.md"}
    {"type": "and", "filters": [ … ]}

An attribute that a passage does not have, or that is of another kind than the value, matches no comparison but `ne` and
`nin`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.errors import InvalidRequest

Attributes = Mapping[str, str | float | bool]
Filter = Callable[[Attributes], bool]

_DEEPEST = 8
_MOST = 64
"""Comparisons in one filter, and values in one `in`."""
_COMPARED = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin")


def read_filter(value: object, *, param: str = "filters") -> Filter | None:
    """The test for a passage's attributes; None where nothing is asked. Raises InvalidRequest with the place."""
    return None if value is None else _Reader().read(value, param, _DEEPEST)


class _Reader:
    def __init__(self) -> None:
        self._left = _MOST

    def read(self, value: object, param: str, depth: int) -> Filter:
        if not isinstance(value, dict):
            raise InvalidRequest(f"Invalid value for '{param}': expected an object", param=param)
        self._left -= 1
        if depth == 0 or self._left < 0:
            raise InvalidRequest(f"Invalid value for '{param}': too many filters, or nested too deep", param=param)
        kind = value.get("type")
        if kind in ("and", "or"):
            inner = value.get("filters")
            if not isinstance(inner, list) or not inner:
                raise InvalidRequest(f"Invalid value for '{param}.filters': expected a list", param=f"{param}.filters")
            tests = [self.read(part, f"{param}.filters[{index}]", depth - 1) for index, part in enumerate(inner)]
            joined = all if kind == "and" else any
            return lambda attributes: joined(test(attributes) for test in tests)
        return self._comparison(value, kind, param)

    def _comparison(self, value: dict[str, Any], kind: object, param: str) -> Filter:
        key, against = value.get("key"), value.get("value")
        if kind not in _COMPARED:
            raise InvalidRequest(f"Invalid value for '{param}.type': use and, or, {', '.join(_COMPARED)}", param=param)
        if not isinstance(key, str):
            raise InvalidRequest(f"Invalid value for '{param}.key': expected a text", param=f"{param}.key")
        wants_list = kind in ("in", "nin")
        values = against if wants_list and isinstance(against, list) else [against]
        if isinstance(against, list) != wants_list or len(values) > _MOST or not all(map(_is_plain, values)):
            expected = f"a list of at most {_MOST} values" if wants_list else "a text, a number or a boolean"
            raise InvalidRequest(f"Invalid value for '{param}.value': expected {expected}", param=f"{param}.value")
        return lambda attributes: _matches(str(kind), attributes.get(key), values)


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def _matches(kind: str, mine: Any, values: list[Any]) -> bool:  # noqa: ANN401 what a client compares with
    found = any(_same_kind(mine, value) and mine == value for value in values)
    if kind in ("eq", "in"):
        return found
    if kind in ("ne", "nin"):
        return not found
    (value,) = values
    if not _same_kind(mine, value) or isinstance(value, bool):
        return False
    match kind:
        case "gt":
            return bool(mine > value)
        case "gte":
            return bool(mine >= value)
        case "lt":
            return bool(mine < value)
        case _:
            return bool(mine <= value)


def _same_kind(one: object, other: object) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return isinstance(one, bool) and isinstance(other, bool)
    return isinstance(one, str) == isinstance(other, str) and one is not None
