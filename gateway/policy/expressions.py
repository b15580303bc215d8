"""Conditions (`when`): CEL, type-checked when the policy is loaded. `conditions` evaluates those of a policy together.

A condition has three outcomes: True, False, and None, "could not be evaluated". What None means is for the caller to
say: it applies a constraint and does not match a route. The library gives errors as values that are truthy, so only a
plain `True` inside a BOOL counts. It bounds expressions itself: 32 levels deep, 10,000 steps of comprehension.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cel_expr_python import cel

from gateway.policy.facts import VARIABLES, Facts, Variable
from gateway.policy.mistakes import suggestion
from gateway.policy.syntax import Node, Unknown, read

MOST_CHARACTERS = 4_000

_COMPLAINT = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)$", re.MULTILINE)
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_OVERLOAD = re.compile(r"found no matching overload for '_?([^'_]+)_?' applied to '\((.*)\)'")
_NO_FIELDS = re.compile(r"expression of type '(\w+)' cannot be the operand of a select")
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
            return f"`{overload[1].lstrip('@')}` does not work on ({overload[2]}){hint}"
        operand = _NO_FIELDS.search(words)
        if operand:
            return f"a {operand[1]} has no fields to ask for"
        return _plain_syntax(words)


_UNREADABLE = re.compile(r"token recognition error at: '(.*)", re.DOTALL)
_UNEXPECTED = re.compile(r"(?:mismatched|extraneous) input '(.*?)' expecting", re.DOTALL)
_SIGNS = (
    ("= ", "`=` is no comparison; write `==`"),
    ("=>", "write `>=`"),
    ("=<", "write `<=`"),
    ("&", "write `&&`"),
    ("|", "write `||`"),
    (("“", "”", "„", "‘", "’", "«", "»"), "put texts in plain quotes: \" or '"),
    (('"', "'"), "the quote at the end of a text is missing"),
)


def _plain_syntax(words: str) -> str:
    """The parser's words about syntax, as somebody would say it who does not know its grammar."""
    unreadable = _UNREADABLE.search(words)
    if unreadable:
        found = (hint for sign, hint in _SIGNS if unreadable[1].startswith(sign))
        return next(found, f"`{unreadable[1][:20].rstrip(chr(39))}` cannot stand in a condition")
    unexpected = _UNEXPECTED.search(words)
    if unexpected is None:
        return words
    if unexpected[1] == "<EOF>":
        return "the condition ends too early: there is nothing after this"
    return (
        f"`{unexpected[1][:40]}` is not expected here; conditions are joined with `&&` and `||`, and negated with `!`"
    )


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
