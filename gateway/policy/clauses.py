"""A condition taken apart into clauses that each ask about one variable, so that outcomes can be looked up.

`tenant.region == "eu" && "health" in request.labels` is two questions, each of one variable; what each variable is
worth in all conditions of a policy can be written down at load (`tables`). A condition becomes `all of (any of
(questions))`; negations are pushed down to the questions. That keeps errors as CEL has them: with `&&` as the smaller
and `||` as the larger of false < error < true, both distribute over each other. What does not fit (two variables in one
comparison, macros, arithmetic, a regular expression) is left to the library as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from gateway.policy.facts import VARIABLES
from gateway.policy.space import entry_aspect
from gateway.policy.syntax import Call, Constant, ListOf, Name, Node, Select, children

Variable = str
"""A CEL variable, or an entry of a map as in `request.metadata team`."""
Questions = dict[Variable, Node]
"""What is asked of each variable; one of them is enough."""

_MOST_CLAUSES = 8
_TYPES = {variable.name: variable.type for variable in VARIABLES}
_JOINS = frozenset({"_&&_", "_||_"})
_CONNECTIVES = _JOINS | {"!_", "_?_:_"}
_EQUAL = frozenset({"_==_", "_!=_"})
_ORDERED = _EQUAL | {"_<_", "_<=_", "_>_", "_>=_"}
ON_TEXTS = frozenset({"startsWith", "endsWith", "contains"})


def clauses_of(tree: Node) -> list[Questions] | None:
    """Clauses of which all have to hold; None for what cannot be taken apart."""
    found = _clauses(tree, negated=False)
    if found is None:
        return None
    merged = [_by_variable(clause) for clause in found]
    single: dict[Variable, Node] = {}
    several = []
    for clause in merged:
        if len(clause) > 1:
            several.append(clause)
            continue
        ((variable, question),) = clause.items()
        single[variable] = question if variable not in single else Call(-1, "_&&_", (single[variable], question))
    return [*({variable: question} for variable, question in single.items()), *several]


def _clauses(tree: Node, *, negated: bool) -> list[list[tuple[Variable, Node]]] | None:
    variable = _single_variable(tree)
    if variable:
        return [[(variable, Call(-1, "!_", (tree,)) if negated else tree)]]
    if not isinstance(tree, Call):
        return None
    if tree.function == "!_":
        return _clauses(tree.arguments[0], negated=not negated)
    if tree.function not in _JOINS:
        return None
    parts = []
    for argument in tree.arguments:
        part = _clauses(argument, negated=negated)
        if part is None:
            return None
        parts.append(part)
    if (tree.function == "_&&_") is not negated:
        joined = [clause for part in parts for clause in part]
    else:
        joined = parts[0]
        for part in parts[1:]:
            joined = [[*one, *other] for one in joined for other in part]
            if len(joined) > _MOST_CLAUSES:
                return None
    return joined if len(joined) <= _MOST_CLAUSES else None


def _by_variable(clause: Sequence[tuple[Variable, Node]]) -> Questions:
    found: Questions = {}
    for variable, question in clause:
        found[variable] = question if variable not in found else Call(-1, "_||_", (found[variable], question))
    return found


def _single_variable(tree: Node) -> Variable:
    """The one variable that `tree` asks about, in ways of which all is known; empty when there is no such."""
    variables = set(_variables(tree))
    return variables.pop() if len(variables) == 1 and "" not in variables else ""


def _variables(node: Node) -> Iterator[Variable]:
    """Of each question its variable; an empty one for what is not known."""
    if isinstance(node, Call) and node.function in _CONNECTIVES:
        for child in children(node):
            yield from _variables(child)
    elif isinstance(node, Constant) and isinstance(node.value, bool):
        return
    else:
        asked = _asked(node)
        yield "" if asked.endswith(" ") else asked  # an entry whose key is empty


def _asked(node: Node) -> Variable:
    """The variable of a question that cannot be taken apart, empty when it is not known."""
    if isinstance(node, Name):
        return node.name if _TYPES.get(node.name) == "bool" else ""
    if isinstance(node, Select):
        return (entry_aspect(node) or "") if node.is_test else ""
    if not isinstance(node, Call) or len(node.arguments) != 2:
        return ""
    one, other = node.arguments
    if node.function == "@in":
        return _asked_in(node, one, other)
    if node.function in ON_TEXTS:
        return _text(one) if _is_text(other) else ""
    if node.function in _ORDERED:
        for asked, constant in ((one, other), (other, one)):
            if isinstance(constant, Constant) and (found := _compared(node.function, asked, constant)):
                return found
    return ""


def _asked_in(node: Call, one: Node, other: Node) -> Variable:
    if isinstance(other, ListOf):
        if all(isinstance(element, Constant) for element in other.elements):
            kinds = {type(element.value) for element in other.elements if isinstance(element, Constant)}
            return _text(one) if kinds <= {str} else _number(one) if kinds <= {int} or kinds <= {float} else ""
        return ""
    if isinstance(other, Name) and _TYPES.get(other.name) == "list(string)":
        return other.name if _is_text(one) else ""
    return entry_aspect(node) or ""


def _compared(function: str, asked: Node, constant: Constant) -> Variable:
    match constant.value:
        case bool():
            is_flag = isinstance(asked, Name) and _TYPES.get(asked.name) == "bool"
            return asked.name if isinstance(asked, Name) and is_flag and function in _EQUAL else ""
        case int() | float():
            return _number(asked) if math.isfinite(constant.value) else ""
        case str():
            return _text(asked) if function in _EQUAL else ""
        case _:
            return ""


def _text(node: Node) -> Variable:
    if isinstance(node, Name):
        return node.name if _TYPES.get(node.name) == "string" else ""
    is_test = isinstance(node, Select) and node.is_test
    is_entry = isinstance(node, Select) or (isinstance(node, Call) and node.function == "_[_]")
    return (entry_aspect(node) or "") if is_entry and not is_test else ""


def _number(node: Node) -> Variable:
    return node.name if isinstance(node, Name) and _TYPES.get(node.name) in {"int", "double"} else ""


def _is_text(node: Node) -> bool:
    return isinstance(node, Constant) and isinstance(node.value, str)
