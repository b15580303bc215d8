"""Which facts a policy's conditions look at, and how closely: the key under which their outcomes can be remembered.

Two requests with equal keys have equal outcomes in every condition. What is only compared with constants is known by
its place among them, so that the number of keys stays small: a prompt's length by the limits that it passes, a feature
by which of the named ones it is, labels by which of the named ones are there. What is no text raises `NoText`: it
cannot be shown to a condition, and must not be taken for something like it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeGuard, cast

from gateway.policy.facts import VARIABLES, Facts
from gateway.policy.syntax import Call, Constant, ListOf, Name, Node, Select, children

Reader = Callable[[Facts], Hashable]
"""Raises NoText."""

_ORDERED = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})
_MAPS = {"request.metadata": "metadata", "request.headers": "headers"}


class NoText(Exception):
    """A text of the facts is no text: its Unicode is broken, or it has a NUL, where the library would end it."""


def check_text(*texts: str) -> None:
    """Raises NoText for what no condition can be asked about."""
    for text in texts:
        if "\0" in text:
            raise NoText
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise NoText from None


class _Uses:
    """How one variable is used: with which constants it is compared; `is_whole` when in any other way too."""

    def __init__(self) -> None:
        self.constants: set[object] = set()
        self.is_whole = False


def key_readers(trees: Iterable[Node]) -> tuple[Reader, ...]:
    """Functions whose values make up the key of a request."""
    uses: dict[str, _Uses] = {}
    for tree in trees:
        _collect(tree, uses)
    return tuple(_reader(name, found) for name, found in sorted(uses.items()))


def _collect(node: Node, uses: dict[str, _Uses]) -> None:
    if isinstance(node, Name):
        uses.setdefault(node.name, _Uses()).is_whole = True
        return
    compared = _compared(node)
    if compared is not None:
        name, constants = compared
        uses.setdefault(name, _Uses()).constants |= constants
        return
    for child in children(node):
        _collect(child, uses)


def _compared(node: Node) -> tuple[str, set[object]] | None:
    """The variable that `node` compares with nothing but constants, and these; of a map the keys that it asks for."""
    if isinstance(node, Select):
        return (node.operand.name, {node.field}) if _is_map(node.operand) else None
    if not isinstance(node, Call) or len(node.arguments) != 2:
        return None
    one, other = node.arguments
    match node.function:
        case "_[_]":
            return (one.name, {other.value}) if _is_map(one) and isinstance(other, Constant) else None
        case "@in":
            if isinstance(one, Constant) and isinstance(other, Name):
                return other.name, {one.value}
            if isinstance(one, Name) and isinstance(other, ListOf) and _are_constants(other.elements):
                return one.name, {element.value for element in other.elements if isinstance(element, Constant)}
        case function if function in _ORDERED:
            for asked, constant in ((one, other), (other, one)):
                if isinstance(asked, Name) and isinstance(constant, Constant):
                    return asked.name, {constant.value}
        case _:
            pass
    return None


def _is_map(node: Node) -> TypeGuard[Name]:
    return isinstance(node, Name) and node.name in _MAPS


def _are_constants(nodes: Sequence[Node]) -> bool:
    return all(isinstance(node, Constant) for node in nodes)


_READ = {variable.name: variable for variable in VARIABLES}


def _reader(name: str, uses: _Uses) -> Reader:
    variable = _READ.get(name)
    if variable is None:  # the variable of a macro: it runs over others, which are there as a whole
        return _nothing
    if name in _MAPS:
        return _whole_map(_MAPS[name]) if uses.is_whole else _entries(_MAPS[name], uses.constants)
    if variable.type in {"int", "double"} and not uses.is_whole:
        return _place(variable.read, uses.constants)
    if name == "request.labels":
        return _labels(None if uses.is_whole else uses.constants)
    if name == "backend.unhealthy":
        return _members("unhealthy", None if uses.is_whole else uses.constants)
    if name == "tenant.labels":
        return _members("tenant_labels", None if uses.is_whole else uses.constants)
    if variable.type == "string":
        return _one_of(variable.read, None if uses.is_whole else uses.constants)
    return variable.read


def _nothing(facts: Facts) -> Hashable:  # noqa: ARG001 - as all readers
    return None


def _place(read: Callable[[Facts], object], constants: Iterable[object]) -> Reader:
    """Between which of the limits a number lies, or on which."""
    limits = sorted(cast("Iterable[float]", constants))

    def place(facts: Facts) -> Hashable:
        value = cast("float", read(facts))
        return bisect_left(limits, value) + bisect_right(limits, value)

    return place


def _one_of(read: Callable[[Facts], object], constants: Iterable[object] | None) -> Reader:
    named = frozenset(constants or ())

    def one_of(facts: Facts) -> Hashable:
        value = cast("str", read(facts))
        if value not in named:
            check_text(value)
        return value if constants is None or value in named else None

    return one_of


def _labels(constants: Iterable[object] | None) -> Reader:
    named = None if constants is None else frozenset(constants)

    def labels(facts: Facts) -> Hashable:
        given = facts.labels | facts.tenant_labels
        check_text(*given)
        return given if named is None else given & named

    return labels


def _members(field: str, constants: Iterable[object] | None) -> Reader:
    named = None if constants is None else frozenset(constants)

    def members(facts: Facts) -> Hashable:
        value: frozenset[str] = getattr(facts, field)
        check_text(*value)
        return value if named is None else value & named

    return members


def _entries(field: str, keys: Iterable[object]) -> Reader:
    asked = tuple(sorted(str(key) for key in keys))

    def entries(facts: Facts) -> Hashable:
        given = getattr(facts, field)
        check_text(*given, *given.values())
        return tuple([given.get(key) for key in asked]) if given else None

    return entries


def _whole_map(field: str) -> Reader:
    def whole(facts: Facts) -> Hashable:
        given = getattr(facts, field)
        check_text(*given, *given.values())
        return frozenset(given.items())

    return whole
