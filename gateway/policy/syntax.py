"""The tree of a checked condition, as the CEL library itself parsed it.

The library hands out no tree, but it serializes one: `cel.expr.CheckedExpr`, a protocol buffer whose fields are fixed
in https://github.com/google/cel-spec/blob/master/proto/cel/expr/checked.proto. Reading that few fields here means that
what is reasoned about (`outcomes`, `search`) is exactly what is evaluated: macros are expanded, names are resolved.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

Scalar = str | int | float | bool | bytes | None


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression. `offset` counts characters from the expression's beginning; -1: not known."""

    offset: int


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """A literal."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A variable, by its full name (`request.feature`), or the variable of a macro."""

    name: str


@dataclass(frozen=True, slots=True)
class Select(Node):
    """`operand.field`, or with `is_test` the macro `has(operand.field)`."""

    operand: Node
    field: str
    is_test: bool


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function or an operator (`_==_`, `@in`); the receiver of a method is the first argument."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ListOf(Node):
    """A list literal."""

    elements: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Loop(Node):
    """What the macros `all`, `exists`, `exists_one`, `filter` and `map` expand to: a fold."""

    variable: str
    over: Node
    accumulator: str
    start: Node
    condition: Node
    step: Node
    result: Node


@dataclass(frozen=True, slots=True)
class Unknown(Node):
    """Something that this reader does not know (map literals, messages)."""


def read(serialized: bytes) -> Node:
    """The tree of a serialized checked expression. What is not known in it is `Unknown`."""
    try:
        checked = _last(serialized, 2)  # google.protobuf.Any.value
        positions = dict(_positions(_last(checked, 5)))
        return _node(_last(checked, 4), positions)
    except (IndexError, KeyError, ValueError, struct.error):
        return Unknown(-1)


def children(node: Node) -> tuple[Node, ...]:
    """The parts directly inside `node`."""
    match node:
        case Select():
            return (node.operand,)
        case Call():
            return node.arguments
        case ListOf():
            return node.elements
        case Loop():
            return (node.over, node.start, node.condition, node.step, node.result)
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """`node` and everything inside it."""
    yield node
    for child in children(node):
        yield from walk(child)


def _node(data: bytes, positions: dict[int, int]) -> Node:
    found = dict(_fields(data))
    offset = positions.get(_integer(found.get(2, 0)), -1)
    match next((number for number in range(3, 10) if number in found), 0):
        case 3:
            return Constant(offset, _constant(_bytes(found[3])))
        case 4:
            return Name(offset, _text(_bytes(found[4]), 1))
        case 5:
            part = dict(_fields(_bytes(found[5])))
            operand = _node(_bytes(part[1]), positions)
            return Select(offset, operand, _bytes(part[2]).decode(), bool(part.get(3, 0)))
        case 6:
            return _call(_bytes(found[6]), offset, positions)
        case 7:
            elements = [_node(_bytes(value), positions) for number, value in _fields(_bytes(found[7])) if number == 1]
            return ListOf(offset, tuple(elements))
        case 9:
            return _loop(_bytes(found[9]), offset, positions)
        case _:
            return Unknown(offset)


def _call(data: bytes, offset: int, positions: dict[int, int]) -> Call:
    target, arguments, function = [], [], ""
    for number, value in _fields(data):
        if number == 1:
            target.append(_node(_bytes(value), positions))
        elif number == 2:
            function = _bytes(value).decode()
        elif number == 3:
            arguments.append(_node(_bytes(value), positions))
    return Call(offset, function, (*target, *arguments))


def _loop(data: bytes, offset: int, positions: dict[int, int]) -> Node:
    part = dict(_fields(data))
    if 8 in part:  # a second variable: no macro of ours makes one
        return Unknown(offset)
    over, start, condition, step, result = (_node(_bytes(part[number]), positions) for number in (2, 4, 5, 6, 7))
    variable, accumulator = _bytes(part[1]).decode(), _bytes(part[3]).decode()
    return Loop(offset, variable, over, accumulator, start, condition, step, result)


def _constant(data: bytes) -> Scalar:
    for number, value in _fields(data):
        match number:
            case 2:
                return bool(value)
            case 3:
                whole = _integer(value)
                return whole - (1 << 64) if whole >> 63 else whole
            case 4:
                return _integer(value)
            case 5:
                return float(struct.unpack("<d", _bytes(value))[0])
            case 6:
                return _bytes(value).decode()
            case 7:
                return _bytes(value)
            case _:
                pass
    return None


def _positions(source_info: bytes) -> Iterator[tuple[int, int]]:
    for number, value in _fields(source_info):
        if number == 4:
            entry = dict(_fields(_bytes(value)))
            yield _integer(entry.get(1, 0)), _integer(entry.get(2, 0))


# --- protocol buffers, as far as they are needed: https://protobuf.dev/programming-guides/encoding/ -------------


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 1:
                yield key >> 3, data[at : at + 8]
                at += 8
            case 2:
                length, at = _varint(data, at)
                yield key >> 3, data[at : at + length]
                at += length
            case _:
                raise ValueError("a wire type that is not used here")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _last(data: bytes, wanted: int) -> bytes:
    return _bytes({number: value for number, value in _fields(data)}[wanted])  # noqa: C416 - says that the last wins


def _text(data: bytes, wanted: int) -> str:
    return _last(data, wanted).decode()


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes were expected")  # noqa: TRY004 - one error for all that is malformed
    return value


def _integer(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("bytes where a number was expected")  # noqa: TRY004 - as above
    return value
