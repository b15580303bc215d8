"""What a part of a condition is worth when everything that it depends on is known: CEL, as far as policies use it.

For reasoning about all requests at load (`space`, `search`), and for what is written down of conditions (`tables`).
What is not known here is `NotKnown`, never a guess; tests compare it with the library on random conditions.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.policy.syntax import Call, Constant, ListOf, Loop, Name, Node, Select
from gateway.policy.witnesses import is_match

Value = Any
"""A value of CEL: str, int, float, bool, bytes, None, a list or a dict."""

_MOST_INT, _LEAST_INT = 2**63 - 1, -(2**63)


class Failed(Exception):
    """CEL would give an error: a key that is not there, a division by zero, an overflow."""


class NotKnown(Exception):
    """Nothing is known here about a function or a form that the expression uses."""


def value_of(node: Node, names: Mapping[str, Value]) -> Value:
    """The value of `node` where `names` says what its variables are.

    Raises:
        Failed: evaluating it is an error in CEL.
        NotKnown: it uses something that is not known here.
    """
    match node:
        case Constant():
            return node.value
        case Name():
            return _of_name(node, names)
        case Select():
            return _select(node, names)
        case ListOf():
            return [value_of(element, names) for element in node.elements]
        case Call():
            return _call(node, names)
        case Loop():
            return _loop(node, names)
        case _:
            raise NotKnown


def _of_name(node: Name, names: Mapping[str, Value]) -> Value:
    if node.name not in names:
        raise NotKnown
    return names[node.name]


def _select(node: Select, names: Mapping[str, Value]) -> Value:
    operand = value_of(node.operand, names)
    if not isinstance(operand, dict):
        raise NotKnown
    if node.is_test:
        return node.field in operand
    if node.field not in operand:
        raise Failed
    return operand[node.field]


def _call(node: Call, names: Mapping[str, Value]) -> Value:
    match node.function:
        case "_&&_" | "_||_":
            return _logical(node.arguments, names, decisive=node.function == "_||_")
        case "_?_:_":
            condition, then, otherwise = node.arguments
            return value_of(then if value_of(condition, names) is True else otherwise, names)
        case "@not_strictly_false":
            try:
                return bool(value_of(node.arguments[0], names) is not False)
            except Failed:
                return True
        case _:
            pass
    known = _FUNCTIONS.get(node.function)
    if known is None:
        raise NotKnown
    arguments = [value_of(argument, names) for argument in node.arguments]
    try:
        return _bounded(known(*arguments))
    except (TypeError, AttributeError):
        raise NotKnown from None
    except (ZeroDivisionError, IndexError, KeyError):
        raise Failed from None


def _logical(parts: Sequence[Node], names: Mapping[str, Value], *, decisive: bool) -> bool:
    """`&&` and `||`: one decisive side outweighs an error of the other."""
    failed = False
    for part in parts:
        try:
            if value_of(part, names) is decisive:
                return bool(decisive)
        except Failed:
            failed = True
    if failed:
        raise Failed
    return not decisive


def _loop(node: Loop, names: Mapping[str, Value]) -> Value:
    over = value_of(node.over, names)
    if not isinstance(over, list | dict):
        raise NotKnown
    inside: dict[str, Value] = {**names, node.accumulator: value_of(node.start, names)}
    failure: Failed | None = None
    for item in over:
        inside[node.variable] = item
        # In CEL an error becomes the accumulator's value, and a later decisive element outweighs it.
        if failure is None and value_of(node.condition, inside) is not True:
            break
        try:
            inside[node.accumulator] = value_of(node.step, inside)
            failure = None if inside[node.accumulator] in (True, False) and failure is None else failure
        except Failed as problem:
            failure = problem
    if failure is not None:
        raise NotKnown  # which side wins depends on the macro; rare enough not to be reasoned about
    return value_of(node.result, inside)


def _bounded(value: Value) -> Value:
    if isinstance(value, int) and not _LEAST_INT <= value <= _MOST_INT:
        raise Failed
    return value


def _size(value: Value) -> int:
    return len(value)


def _divided(one: Value, other: Value) -> Value:
    if isinstance(one, float):
        raise NotKnown
    whole = abs(one) // abs(other)
    return whole if (one < 0) == (other < 0) else -whole


def _remainder(one: int, other: int) -> int:
    left = abs(one) % abs(other)
    return -left if one < 0 else left


def _item(container: Value, key: Value) -> Value:
    if isinstance(container, list) and key < 0:
        raise Failed
    return container[key]


def _matches(text: str, pattern: str) -> bool:
    found = is_match(pattern, text)
    if found is None:
        raise Failed
    return found


_FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "_==_": operator.eq,
    "_!=_": operator.ne,
    "_<_": operator.lt,
    "_<=_": operator.le,
    "_>_": operator.gt,
    "_>=_": operator.ge,
    "!_": operator.not_,
    "-_": operator.neg,
    "_+_": operator.add,
    "_-_": operator.sub,
    "_*_": operator.mul,
    "_/_": _divided,
    "_%_": _remainder,
    "_[_]": _item,
    "@in": lambda item, container: item in container,
    "size": _size,
    "startsWith": lambda text, part: text.startswith(part),
    "endsWith": lambda text, part: text.endswith(part),
    "contains": lambda text, part: part in text,
    "matches": _matches,
}
