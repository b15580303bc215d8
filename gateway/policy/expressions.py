"""Conditions (`when`): CEL, type-checked when the policy is loaded, evaluated together for each request.

One evaluation costs 1.3 µs, nearly all of it the way into the C++ library and back. So the conditions of a policy are
compiled once more as one list, `[(a), (b), …]`, and a request asks for all of their values at once. An error in
one of them makes the whole list an error; only then are they evaluated one by one.

A condition has three outcomes: True, False, and None, "could not be evaluated". What None means is for the caller to
say: it applies a constraint and does not match a route. The library gives errors as values that are truthy, so only a
plain `True` inside a BOOL counts. It bounds expressions itself: 32 levels deep, 10,000 steps of comprehension.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import cast

from cel_expr_python import cel

from gateway.policy.classes import key_readers
from gateway.policy.facts import VARIABLES, Facts, Variable
from gateway.policy.mistakes import suggestion
from gateway.policy.syntax import Node, Unknown, read

MOST_CHARACTERS = 4_000
_MOST_CHARACTERS_TOGETHER = 50_000

_COMPLAINT = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)$", re.MULTILINE)
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_OVERLOAD = re.compile(r"found no matching overload for '_?([^'_]+)_?' applied to '\((.*)\)'")
_KNOWN_FUNCTIONS = (
    *("has", "all", "exists", "exists_one", "filter", "map", "size"),
    *("startsWith", "endsWith", "contains", "matches"),
)


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with an expression; line and column count from 1 inside it."""

    line: int
    column: int
    message: str


class ExpressionError(Exception):
    """An expression cannot be used; `complaints` says why. Never leaves this room: it becomes mistakes."""

    def __init__(self, complaints: list[Complaint]) -> None:
        super().__init__("; ".join(complaint.message for complaint in complaints))
        self.complaints = complaints


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked expression. `constant` is its value if it depends on nothing."""

    source: str
    expression: cel.Expression
    constant: bool | None = None
    tree: Node = Unknown(-1)  # noqa: RUF009 - immutable


class Compiler:
    """Checks expressions against the documented variables. One per load: the library's environment is made here."""

    def __init__(self, variables: Sequence[Variable] = VARIABLES) -> None:
        self._names = [variable.name for variable in variables]
        self.environment = cel.NewEnv(variables={variable.name: _cel_type(variable) for variable in variables})
        self._without_variables = cel.NewEnv(variables={})
        self._dry_run = self.environment.Activation(bindings(Facts(tenant_name="", model=""), variables))

    def compile(self, source: str) -> Condition:
        """Check `source` and run it once on empty facts. Raises ExpressionError."""
        if len(source) > MOST_CHARACTERS:
            raise ExpressionError([Complaint(1, 1, f"longer than {MOST_CHARACTERS:,} characters; split the rule")])
        try:
            expression = self.environment.compile(source)
        except (RuntimeError, TypeError) as problem:
            raise ExpressionError(self._complaints(str(problem))) from None
        if expression.return_type() != cel.Type.BOOL:
            kind = expression.return_type().name().lower()
            raise ExpressionError([Complaint(1, 1, f"a condition must be true or false, but this gives {kind}")])
        outcome_of(expression, self._dry_run)
        return Condition(source, expression, self._constant(source), read(expression.serialize()))

    def _constant(self, source: str) -> bool | None:
        try:
            expression = self._without_variables.compile(source)
        except RuntimeError:
            return None
        outcome = outcome_of(expression, self._without_variables.Activation({}))
        if outcome is None:
            raise ExpressionError([Complaint(1, 1, "this can never be evaluated, whatever the request is")])
        return outcome

    def _complaints(self, raw: str) -> list[Complaint]:
        found = [
            Complaint(int(line), int(column), self._explained(words)) for line, column, words in _COMPLAINT.findall(raw)
        ]
        if found:
            return found[:3]
        if "recursion limit" in raw:
            return [Complaint(1, 1, "nested too deeply; split the rule")]
        return [Complaint(1, 1, f"not an expression: {raw.splitlines()[0][:200]}")]

    def _explained(self, words: str) -> str:
        undeclared = _UNDECLARED.search(words)
        if undeclared:
            name = undeclared[1]
            if "." not in name and name not in {"tenant", "request", "budget", "backend"}:
                return f"unknown name `{name}`{suggestion(name, [*self._names, *_KNOWN_FUNCTIONS])}"
            return f"unknown variable `{name}`{suggestion(name, self._names)}"
        overload = _OVERLOAD.search(words)
        if overload:
            hint = ""
            if overload[2] in {"double, int", "int, double"}:
                hint = "; write 1.0 against a double and 1 against an int"
            return f"`{overload[1]}` does not work on ({overload[2]}){hint}"
        if "token recognition error at: '= '" in words:
            return "`=` is no comparison; write `==`"
        return words


class _Group:
    """Conditions in a row, evaluated with one expression; with those of its parts where that one cannot be used."""

    __slots__ = ("_expression", "_parts", "_size")

    def __init__(self, environment: cel.Env, conditions: Sequence[Condition], sizes: Sequence[int]) -> None:
        self._size = len(conditions)
        self._expression = conditions[0].expression if self._size == 1 else _joined(environment, conditions)
        self._parts = () if self._size == 1 else groups(environment, conditions, sizes)

    def outcomes(self, activation: cel.Activation) -> list[bool | None]:
        """The outcome of each, in order."""
        if not self._parts:
            return [outcome_of(self._expression, activation)]
        if self._expression is not None:
            try:
                found = self._expression.eval(activation).plain_value()
            except Exception:  # noqa: BLE001 - as in outcome_of
                found = None
            # An error comes as a text. Of a list, all elements are of the type that was checked at load.
            if isinstance(found, list) and len(found) == self._size and _BOOLEANS.issuperset(found):
                return cast("list[bool | None]", found)
        return [outcome for part in self._parts for outcome in part.outcomes(activation)]


_BOOLEANS = frozenset({True, False})
_SIZES = (128, 16, 1)
"""Of groups and of their parts: an error in one condition costs two groups and its 16 neighbours, not all of them."""


def groups(environment: cel.Env, conditions: Sequence[Condition], sizes: Sequence[int] = _SIZES) -> tuple[_Group, ...]:
    """`conditions` in groups of `sizes[0]`, these in parts of `sizes[1]`, and so on down to 1."""
    size, *smaller = sizes
    starts = range(0, len(conditions), size)
    return tuple(_Group(environment, conditions[start : start + size], smaller or (1,)) for start in starts)


def _joined(environment: cel.Env, conditions: Sequence[Condition]) -> cel.Expression | None:
    """One list of all of them; None where that is too long, or one of them uses up the depth that a list needs."""
    if sum(len(condition.source) + 5 for condition in conditions) > _MOST_CHARACTERS_TOGETHER:
        return None
    # Line breaks, so that a comment at the end of one expression does not swallow the next.
    source = "[" + ",".join(f"(\n{condition.source}\n)" for condition in conditions) + "]"
    try:
        return environment.compile(source)
    except RuntimeError:
        return None


class Conditions:
    """All conditions of one policy, by position; made to be evaluated together. Immutable once made."""

    def __init__(self, compiler: Compiler, conditions: Sequence[Condition]) -> None:
        self._size = len(conditions)
        self._environment = compiler.environment
        self.trees = tuple(condition.tree for condition in conditions)
        """The tree of each, for reasoning about all requests."""
        mentioned = " ".join(condition.source for condition in conditions)
        # A variable can only be used by its last name; one too many only costs its binding.
        self._variables = tuple(v for v in VARIABLES if v.name.rpartition(".")[2] in mentioned)
        self._groups = groups(compiler.environment, conditions)
        self._readers = key_readers(self.trees)

    def __len__(self) -> int:
        return self._size

    def key(self, facts: Facts) -> tuple[Hashable, ...]:
        """Equal for two requests only if every condition has the same outcome in both."""
        return tuple([read(facts) for read in self._readers])

    def evaluate(self, facts: Facts) -> list[bool | None]:
        """The outcome of each condition, in order. Never raises: what goes wrong is None."""
        if not self._size:
            return []
        try:
            activation = self._environment.Activation(bindings(facts, self._variables))
        except Exception:  # noqa: BLE001 - facts that cannot be bound (broken Unicode) must fail closed, whatever is raised
            return [None] * self._size
        if len(self._groups) == 1:
            return self._groups[0].outcomes(activation)
        return [outcome for group in self._groups for outcome in group.outcomes(activation)]

    def outcome(self, condition: Condition, facts: Facts) -> bool | None:
        """The outcome of a condition that is none of these. Never raises."""
        try:
            activation = self._environment.Activation(bindings(facts, VARIABLES))
        except Exception:  # noqa: BLE001 - as in evaluate
            return None
        return outcome_of(condition.expression, activation)


def bindings(facts: Facts, variables: Sequence[Variable]) -> dict[str, object]:
    """What the expressions see of `facts`."""
    return {variable.name: variable.read(facts) for variable in variables}


def outcome_of(expression: cel.Expression, activation: cel.Activation) -> bool | None:
    """True or False, or None for an error of any kind: raised, returned as a value, or a value that is no BOOL."""
    try:
        value = expression.eval(activation)
        plain = value.value() if value.type() == cel.Type.BOOL else None
    except Exception:  # noqa: BLE001 - the library raises RuntimeError and others; each of them must fail closed
        return None
    return plain if plain is True or plain is False else None


def _cel_type(variable: Variable) -> cel.Type:
    types = {
        "string": cel.Type.STRING,
        "int": cel.Type.INT,
        "double": cel.Type.DOUBLE,
        "bool": cel.Type.BOOL,
        "list(string)": cel.Type.List(cel.Type.STRING),
        "map(string, string)": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
    }
    return types[variable.type]
