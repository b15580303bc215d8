"""What one variable is worth in all conditions that ask about it: written down at load, looked up for each request.

A table gives two bit masks over the conditions of a policy: in which of them the answer is true, and in which false;
an answer in neither is an error. Questions only compare a variable with constants, so that almost all of its values are
alike: of a text the constants matter and one that is none of them, of a number the limits and what lies between them,
of labels those that are named. Of a text that is also searched (`contains`), each value that comes is looked at once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Final, cast

from gateway.policy.classes import check_text
from gateway.policy.clauses import ON_TEXTS, Variable
from gateway.policy.evaluate import Failed, NotKnown, Value, value_of
from gateway.policy.facts import VARIABLES, Facts
from gateway.policy.syntax import Call, Constant, Node, walk

Answers = tuple[int, int]
"""Bits of the conditions in which the answer is true, and of those in which it is false."""
Table = Callable[[Facts], Answers]
Questions = Mapping[int, Node]
"""By the position of the condition."""

_MOST_REMEMBERED = 1_024
_LONGEST_REMEMBERED = 512
"""Characters: a client's metadata may have millions, and a thousand of such would be kept."""
_READ = {variable.name: variable for variable in VARIABLES}
_SETS: Mapping[str, Callable[[Facts], frozenset[str]]] = {
    "request.labels": lambda facts: facts.labels | facts.tenant_labels,
    "tenant.labels": lambda facts: facts.tenant_labels,
    "backend.unhealthy": lambda facts: facts.unhealthy,
}
_ABSENT: Final = None
"""What a map gives for a key that it does not have."""


def table_of(variable: Variable, questions: Questions) -> Table:
    """The table of `variable`, an entry of a map or a CEL variable of any type but a map."""
    container, _, key = variable.partition(" ")
    if key:
        return _entry_table(container, key, questions)
    if variable in _SETS:
        return _set_table(variable, _SETS[variable], questions)
    found = _READ[variable]
    if found.type == "bool":
        return _flag_table(variable, found.read, questions)
    if found.type == "string":
        known, other = _texts(questions, lambda value: {variable: value})
        read = cast("Callable[[Facts], str]", found.read)
        return lambda facts: known.get(value := read(facts)) or other(value)
    return _number_table(variable, cast("Callable[[Facts], float]", found.read), questions)


def _answers(questions: Iterable[tuple[int, Node]], names: Mapping[str, Value]) -> Answers:
    true = false = 0
    for position, question in questions:
        try:
            value = value_of(question, names)
        except (Failed, NotKnown):
            continue
        if value is True:
            true |= 1 << position
        elif value is False:
            false |= 1 << position
    return true, false


def _changed(before: Answers, questions: Questions, asking: Iterable[int], names: Mapping[str, Value]) -> Answers:
    """`before`, with the answers of the conditions in `asking` found anew."""
    positions = list(asking)
    mask = sum(1 << position for position in positions)
    true, false = _answers(((position, questions[position]) for position in positions), names)
    return before[0] & ~mask | true, before[1] & ~mask | false


def _asking_for(questions: Questions) -> dict[Value, list[int]]:
    """Constant -> the conditions that name it."""
    found: dict[Value, dict[int, None]] = {}
    for position, question in questions.items():
        for part in walk(question):
            if isinstance(part, Constant) and not isinstance(part.value, bool):
                found.setdefault(part.value, {})[position] = None
    return {constant: list(positions) for constant, positions in found.items()}


def _flag_table(variable: Variable, read: Callable[[Facts], object], questions: Questions) -> Table:
    yes, no = (_answers(questions.items(), {variable: value}) for value in (True, False))
    return lambda facts: yes if read(facts) is True else no


def _texts(
    questions: Questions, names: Callable[[str], Mapping[str, Value]]
) -> tuple[dict[str | None, Answers], Callable[[str], Answers]]:
    """The answers for the texts that are named, and a function that gives those for any other."""
    known: dict[str | None, Answers] = {}
    searching = [position for position, question in questions.items() if _searches(question)]
    asking = _asking_for(questions)
    plain = _answers(questions.items(), names(_unlike(asking)))
    for constant in asking:
        known[str(constant)] = _answers(questions.items(), names(str(constant)))
    seen: dict[str, Answers] = {}

    def other(text: str) -> Answers:
        check_text(text)
        if not searching:
            return plain
        if len(text) > _LONGEST_REMEMBERED:
            return _changed(plain, questions, searching, names(text))
        found = seen.get(text)
        if found is None:
            if len(seen) >= _MOST_REMEMBERED:
                seen.clear()
            found = seen[text] = _changed(plain, questions, searching, names(text))
        return found

    return known, other


def _searches(question: Node) -> bool:
    return any(isinstance(part, Call) and part.function in ON_TEXTS for part in walk(question))


def _unlike(constants: Iterable[Value]) -> str:
    """A text that is none of the constants."""
    return "".join(str(constant) for constant in constants) + "-"


def _entry_table(container: str, key: str, questions: Questions) -> Table:
    known, other = _texts(questions, lambda value: {container: {key: value}})
    absent = known[_ABSENT] = _answers(questions.items(), {container: {}})
    field = container.partition(".")[2]

    def find(facts: Facts) -> Answers:
        given: Mapping[str, str] = getattr(facts, field)
        if not given:
            return absent
        check_text(*given, *given.values())
        value = given.get(key)
        return known.get(value) or (absent if value is None else other(value))

    return find


def _number_table(variable: Variable, read: Callable[[Facts], float], questions: Questions) -> Table:
    asking = _asking_for(questions)
    limits = sorted(asking)
    values = list(_on_both_sides(limits))
    answers = [_answers(questions.items(), {variable: values[0]})]
    for place, value in enumerate(values[1:], start=1):
        # From the limit's one side to the limit, and on to its other side: only who names it can change its mind.
        answers.append(_changed(answers[-1], questions, asking[limits[(place - 1) // 2]], {variable: value}))

    def find(facts: Facts) -> Answers:
        value = read(facts)
        if value != value:  # noqa: PLR0124 - no number: it is nowhere among the limits
            return _answers(questions.items(), {variable: value})
        return answers[bisect_left(limits, value) + bisect_right(limits, value)]

    return find


def _on_both_sides(limits: list[float]) -> Iterator[Value]:
    """Below the least limit, each limit, between each two, and above the largest."""
    yield Fraction(limits[0]) - 1 if limits else 0
    for place, limit in enumerate(limits):
        yield limit
        after = Fraction(limits[place + 1]) if place + 1 < len(limits) else Fraction(limit) + 2
        yield (Fraction(limit) + after) / 2


def _set_table(variable: Variable, read: Callable[[Facts], frozenset[str]], questions: Questions) -> Table:
    asking = _asking_for(questions)
    named = frozenset(str(constant) for constant in asking)
    nothing = _answers(questions.items(), {variable: frozenset()})
    known: dict[frozenset[str], Answers] = {frozenset(): nothing}
    for name in named:
        known[frozenset({name})] = _changed(nothing, questions, asking[name], {variable: {name}})

    def find(facts: Facts) -> Answers:
        given = read(facts)
        if not given:
            return nothing
        check_text(*given)
        here = given & named
        found = known.get(here)
        if found is None:
            if len(known) > len(named) + _MOST_REMEMBERED:
                return _changed(nothing, questions, {each for name in here for each in asking[name]}, {variable: here})
            concerned = {each for name in here for each in asking[name]}
            found = known[here] = _changed(nothing, questions, concerned, {variable: here})
        return found

    return find
