"""Literals in conditions that can never be met: a model that there is not, a label that no label can be."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from gateway.policy.mistakes import suggestion
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
        if isinstance(part, Call) and part.function in _NEVER_EQUAL | {"_!=_"}:
            for asked, compared in itertools.permutations(part.arguments, 2):
                check = _CHECKS.get(asked.name) if isinstance(asked, Name) else None
                if check is not None:
                    for literal in _literals(compared):
                        yield from check(literal, known)


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
    "request.hour": _hour,
}
