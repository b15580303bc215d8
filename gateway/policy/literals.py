"""Literals in conditions that can never be met: a model that there is not, a label that no label can be."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import re2

from gateway.classification.language import LANGUAGES
from gateway.policy.facts import VARIABLES
from gateway.policy.mistakes import nearest, suggestion
from gateway.policy.space import entry_aspect
from gateway.policy.syntax import Call, Constant, ListOf, Name, Node, walk

_LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_NEVER_EQUAL = frozenset({"_==_", "@in"})


class Known(NamedTuple):
    """The names of a policy."""

    models: Iterable[str]
    deployments: Iterable[str]
    tenants: Iterable[str]
    regions: Iterable[str]
    tenant_labels: Iterable[str]
    headers: Iterable[str]
    """That a trusted proxy sets."""
    labels: Iterable[str]
    """That policy or the classifier gives to requests; clients may send others."""


class Odd(NamedTuple):
    """A literal that is never met. `is_certain`: whatever tenants come."""

    offset: int
    message: str
    is_certain: bool


def odd_literals(tree: Node, known: Known) -> Iterator[Odd]:
    """What is compared in `tree` with something that it can never be."""
    for part in walk(tree):
        kind, _, key = (entry_aspect(part) or "").partition(" ")
        if kind == "request.headers" and key not in (there := set(known.headers)):
            yield Odd(part.offset, f"no trusted proxy sets the header `{key}`{suggestion(key, there)}", is_certain=True)
        if isinstance(part, Call) and part.function == "matches":
            yield from _pattern(part.arguments[1])
        if isinstance(part, Call) and part.function == "@in":
            yield from _of_another_type(*part.arguments)
        if isinstance(part, Call) and part.function in _NEVER_EQUAL | {"_!=_"}:
            for asked, compared in itertools.permutations(part.arguments, 2):
                check = _CHECKS.get(asked.name) if isinstance(asked, Name) else None
                if check is not None:
                    for literal in _literals(compared):
                        yield from check(literal, known)


def _pattern(node: Node) -> Iterator[Odd]:
    """A regular expression that cannot be read would make the condition one that can never be evaluated."""
    if isinstance(node, Constant) and isinstance(node.value, str):
        options = re2.Options()
        options.log_errors = False
        try:
            re2.compile(node.value, options)
        except re2.error as problem:
            words = problem.args[0].decode() if isinstance(problem.args[0], bytes) else str(problem.args[0])
            yield Odd(node.offset, f"`{node.value[:80]}` is no regular expression: {words}", is_certain=True)


def _of_another_type(asked: Node, among: Node) -> Iterator[Odd]:
    """In a list of mixed types CEL compares what can never be equal."""
    if not isinstance(asked, Name) or not isinstance(among, ListOf) or _TYPES.get(asked.name) not in _EXPECTED:
        return
    expected, kind = _EXPECTED[_TYPES[asked.name]]
    for element in among.elements:
        if isinstance(element, Constant) and type(element.value) is not expected:
            yield Odd(element.offset, f"`{asked.name}` is never equal to this: it is {kind}", is_certain=True)


_TYPES: Mapping[str, str] = {variable.name: variable.type for variable in VARIABLES}
_EXPECTED = {"string": (str, "a text"), "int": (int, "a whole number"), "double": (float, "a number such as 0.5")}


def _literals(node: Node) -> Iterator[Constant]:
    if isinstance(node, Constant):
        yield node
    if isinstance(node, ListOf):
        for element in node.elements:
            yield from _literals(element)


def _among(what: str, names: Callable[[Known], Iterable[str]], *, is_certain: bool) -> Callable[..., Iterator[Odd]]:
    def check(literal: Constant, known: Known) -> Iterator[Odd]:
        value = literal.value
        there = set(names(known))
        # Where there is none at all, the rule stands there for the first one that comes.
        if isinstance(value, str) and value and value not in there and (there or is_certain):
            yield Odd(literal.offset, f"there is no {what} `{value}`{suggestion(value, there)}", is_certain)

    return check


def _label(literal: Constant, known: Known) -> Iterator[Odd]:
    value = literal.value
    if isinstance(value, str) and not _LABEL.fullmatch(value) and value not in set(known.tenant_labels):
        words = f"no request has the label `{value}`: labels are lower case letters, digits and _ . -"
        yield Odd(literal.offset, words, is_certain=True)
    elif isinstance(value, str) and value not in (there := set(known.labels)):
        near = [name for name in nearest(value, there) if _is_nearly(value, name)]
        if near:
            words = f"only clients give the label `{value}`; did you mean `{near[0]}`?"
            yield Odd(literal.offset, words, is_certain=False)


def _is_nearly(one: str, other: str) -> bool:
    """One typing mistake away, and not the beginning of the other (`personal` and `personal.card` are two labels)."""
    likeness = difflib.SequenceMatcher(None, one, other).ratio()
    return likeness >= _ALIKE and not one.startswith(other) and not other.startswith(one)


_ALIKE = 0.8


def _language(literal: Constant, known: Known) -> Iterator[Odd]:  # noqa: ARG001 - as the other checks
    value = literal.value
    if isinstance(value, str) and value and value not in LANGUAGES:
        words = f"no prompt has the language `{value}`: it is one of {', '.join(LANGUAGES)}, or empty"
        yield Odd(literal.offset, words, is_certain=True)


def _hour(literal: Constant, known: Known) -> Iterator[Odd]:  # noqa: ARG001 - as the other checks
    value = literal.value
    if isinstance(value, int) and not 0 <= value <= 23:
        yield Odd(literal.offset, f"there is no hour {value}: hours are 0 to 23, in UTC", is_certain=True)


_CHECKS: Mapping[str, Callable[[Constant, Known], Iterator[Odd]]] = {
    "request.model": _among("model", lambda known: known.models, is_certain=True),
    "backend.unhealthy": _among("deployment", lambda known: known.deployments, is_certain=True),
    "tenant.name": _among("tenant", lambda known: known.tenants, is_certain=False),
    "tenant.region": _among("tenant of region", lambda known: known.regions, is_certain=False),
    "tenant.labels": _among("tenant with the label", lambda known: known.tenant_labels, is_certain=False),
    "request.labels": _label,
    "request.language": _language,
    "request.hour": _hour,
}
