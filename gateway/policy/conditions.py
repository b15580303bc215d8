"""All conditions of one policy, evaluated together for each request.

Most conditions compare variables with constants: they are taken apart at load (`clauses`), and their outcomes are
looked up in one table for each variable (`tables`), as bits of all conditions at once, so that it hardly matters how
many there are. A test holds the outcomes against the library's on random conditions.

The others are left to the library. One evaluation costs 1.3 µs, nearly all of it the way into C++ and back, so they are
compiled once more as one list, `[(a), (b), …]`, and asked for at once. An error in one of them makes the whole list an
error; only then are they evaluated in parts. What came out is remembered by what they look at (`classes`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, cast

from cel_expr_python import cel

from gateway.policy.classes import NoText, key_readers
from gateway.policy.clauses import Questions as Clause
from gateway.policy.clauses import Variable, clauses_of
from gateway.policy.expressions import Compiler, Condition, bindings, outcome_of
from gateway.policy.facts import VARIABLES, Facts
from gateway.policy.syntax import Name, Node, Unknown, walk
from gateway.policy.tables import Answers, Table, table_of

_MOST_CHARACTERS_TOGETHER = 50_000
_MOST_REMEMBERED = 4_096
_LONGEST_REMEMBERED = 4_096
"""Characters of metadata and headers together: a client may send millions."""

Elsewhere = tuple[Table, int]
"""A table, and the bits of the conditions that it says nothing about."""


class Outcomes(NamedTuple):
    """Of each condition, as bits by its position: true, false, or neither, which could not be evaluated."""

    true: int
    false: int
    is_text: bool = True
    """False: a text of the facts cannot be shown to any condition, so that nothing is known."""

    def of(self, position: int) -> bool | None:
        """The outcome of one condition."""
        if self.true >> position & 1:
            return True
        return False if self.false >> position & 1 else None


class Conditions:
    """All conditions of one policy, by position. They never change, but for what is remembered of their outcomes."""

    def __init__(self, compiler: Compiler, conditions: Sequence[Condition]) -> None:
        self._size = len(conditions)
        self._environment = compiler.environment
        self.trees = tuple(condition.tree for condition in conditions)
        """The tree of each, for reasoning about all requests."""
        taken_apart = {place: found for place, tree in enumerate(self.trees) if (found := clauses_of(tree)) is not None}
        self._alone = _alone(taken_apart, self._size)
        self._joined = _joined(taken_apart)
        left = {place: condition for place, condition in enumerate(conditions) if place not in taken_apart}
        self._others = _Others(compiler.environment, left) if left else None
        self._looked_up = ((1 << self._size) - 1) & ~_bits(left)

    def __len__(self) -> int:
        return self._size

    def read(self, variable: str) -> bool:
        """Some condition asks for the variable, or it is not known what one of them asks for."""
        parts = (part for tree in self.trees for part in walk(tree))
        return any(isinstance(part, Unknown) or (isinstance(part, Name) and part.name == variable) for part in parts)

    def outcomes(self, facts: Facts) -> Outcomes:
        """The outcomes of all. Never raises: what cannot be evaluated is neither true nor false."""
        true, false = self._looked_up, 0
        try:
            for table, elsewhere in self._alone:
                yes, no = table(facts)
                true &= yes | elsewhere
                false |= no
            for concerned, tables in self._joined:
                any_yes, all_no = ~concerned, concerned
                for table, elsewhere in tables:
                    yes, no = table(facts)
                    any_yes |= yes
                    all_no &= no | elsewhere
                true &= any_yes
                false |= all_no
            if self._others is not None:
                yes, no = self._others.answers(facts)
                true |= yes
                false |= no
        except NoText:
            return Outcomes(0, 0, is_text=False)
        return Outcomes(true, false)

    def evaluate(self, facts: Facts) -> list[bool | None]:
        """The outcome of each condition, in order."""
        found = self.outcomes(facts)
        return [found.of(position) for position in range(self._size)]

    def outcome(self, condition: Condition, facts: Facts) -> bool | None:
        """The outcome of a condition that is none of these. Never raises."""
        try:
            activation = self._environment.Activation(bindings(facts, VARIABLES))
        except Exception:  # noqa: BLE001 - facts that cannot be bound (broken Unicode) must fail closed, whatever is raised
            return None
        return outcome_of(condition.expression, activation)

    def forget(self) -> None:
        """Begin anew with what was known when the policy was loaded."""
        if self._others is not None:
            self._others.forget()


def _bits(positions: Mapping[int, object]) -> int:
    return sum(1 << position for position in positions)


def _alone(taken_apart: Mapping[int, Sequence[Clause]], size: int) -> list[Elsewhere]:
    """Questions that have to be answered with true, by variable; each condition has one for a variable."""
    asked: dict[Variable, dict[int, Node]] = {}
    for place, clauses in taken_apart.items():
        for clause in clauses:
            if len(clause) == 1:
                ((variable, question),) = clause.items()
                asked.setdefault(variable, {})[place] = question
    everything = (1 << size) - 1
    return [(table_of(name, questions), everything & ~_bits(questions)) for name, questions in asked.items()]


def _joined(taken_apart: Mapping[int, Sequence[Clause]]) -> list[tuple[int, list[Elsewhere]]]:
    """Questions of which one has to be answered with true: rows in which a condition has at most one such clause."""
    rows: list[dict[Variable, dict[int, Node]]] = []
    for place, clauses in taken_apart.items():
        for number, clause in enumerate(clause for clause in clauses if len(clause) > 1):
            if number == len(rows):
                rows.append({})
            for variable, question in clause.items():
                rows[number].setdefault(variable, {})[place] = question
    found = []
    for row in rows:
        concerned = _bits({place: None for asked in row.values() for place in asked})
        tables = [(table_of(name, questions), concerned & ~_bits(questions)) for name, questions in row.items()]
        found.append((concerned, tables))
    return found


def _is_long(facts: Facts) -> bool:
    given = (facts.metadata, facts.headers)
    return sum(len(key) + len(value) for entries in given for key, value in entries.items()) > _LONGEST_REMEMBERED


class _Others:
    """Conditions that are evaluated by the library."""

    def __init__(self, environment: cel.Env, conditions: Mapping[int, Condition]) -> None:
        self._positions = tuple(conditions)
        self._environment = environment
        mentioned = " ".join(condition.source for condition in conditions.values())
        # A variable can only be used by its last name; one too many only costs its binding.
        self._variables = tuple(v for v in VARIABLES if v.name.rpartition(".")[2] in mentioned)
        self._groups = _groups(environment, tuple(conditions.values()))
        self._readers = key_readers(condition.tree for condition in conditions.values())
        self._remembered: dict[tuple[Hashable, ...], Answers] = {}

    def answers(self, facts: Facts) -> Answers:
        """Raises NoText."""
        key = tuple([read(facts) for read in self._readers])
        found = self._remembered.get(key)
        if found is None:
            found = self._evaluated(facts)
            if _is_long(facts):
                return found
            if len(self._remembered) >= _MOST_REMEMBERED:
                self.forget()
            self._remembered[key] = found
        return found

    def forget(self) -> None:
        self._remembered.clear()

    def _evaluated(self, facts: Facts) -> Answers:
        try:
            activation = self._environment.Activation(bindings(facts, self._variables))
        except Exception:  # noqa: BLE001 - facts that cannot be bound (broken Unicode) must fail closed, whatever is raised
            raise NoText from None
        outcomes = [outcome for group in self._groups for outcome in group.outcomes(activation)]
        true = false = 0
        for position, outcome in zip(self._positions, outcomes, strict=True):
            true |= (outcome is True) << position
            false |= (outcome is False) << position
        return true, false


class _Group:
    """Conditions in a row, evaluated with one expression; with those of its parts where that one cannot be used."""

    __slots__ = ("_expression", "_parts", "_size")

    def __init__(self, environment: cel.Env, conditions: Sequence[Condition], sizes: Sequence[int]) -> None:
        self._size = len(conditions)
        self._expression = conditions[0].expression if self._size == 1 else _one_list(environment, conditions)
        self._parts = () if self._size == 1 else _groups(environment, conditions, sizes)

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


def _groups(environment: cel.Env, conditions: Sequence[Condition], sizes: Sequence[int] = _SIZES) -> tuple[_Group, ...]:
    """`conditions` in groups of `sizes[0]`, these in parts of `sizes[1]`, and so on down to 1."""
    size, *smaller = sizes
    starts = range(0, len(conditions), size)
    return tuple(_Group(environment, conditions[start : start + size], smaller or (1,)) for start in starts)


def _one_list(environment: cel.Env, conditions: Sequence[Condition]) -> cel.Expression | None:
    """One list of all of them; None where that is too long, or one of them uses up the depth that a list needs."""
    if sum(len(condition.source) + 5 for condition in conditions) > _MOST_CHARACTERS_TOGETHER:
        return None
    # Line breaks, so that a comment at the end of one expression does not swallow the next.
    source = "[" + ",".join(f"(\n{condition.source}\n)" for condition in conditions) + "]"
    try:
        return environment.compile(source)
    except RuntimeError:
        return None
