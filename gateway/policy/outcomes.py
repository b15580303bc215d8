"""Conditions as formulas: which outcomes are possible when only some aspects of a request are known.

An outcome is one of three: true, false, or an error. A formula answers with a set of them, as bits. What is decisive
makes an answer early: `a && b` with a false `a` is false whatever `b` depends on, and that is what makes it possible to
look at all requests without looking at each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.policy.evaluate import Failed, NotKnown, Value, value_of
from gateway.policy.space import (
    FAILS,
    LABEL,
    MODEL,
    TENANT,
    Aspect,
    Space,
    entry_aspect,
    names_of,
    text_aspect,
)
from gateway.policy.syntax import Call, Constant, ListOf, Loop, Name, Node, Select, Unknown, children, walk
from gateway.policy.witnesses import is_match

TRUE: Final = 1
FALSE: Final = 2
ERROR: Final = 4
ANY: Final = TRUE | FALSE | ERROR
FREE: Final = "free "

Known = Mapping[Aspect, Value]


class Formula:
    """A condition. `aspects` are those that it depends on."""

    __slots__ = ("aspects",)

    def __init__(self, aspects: frozenset[Aspect]) -> None:
        self.aspects = aspects

    def outcomes(self, known: Known) -> int:
        """The outcomes that are possible for requests with these values."""
        raise NotImplementedError


class _Atom(Formula):
    """A part that cannot be taken apart."""

    __slots__ = ("_cache", "_may_fail", "_node", "_order", "_space")

    def __init__(self, node: Node, space: Space, aspects: frozenset[Aspect]) -> None:
        super().__init__(aspects)
        self._node = node
        self._space = space
        self._order = tuple(sorted(aspects))
        self._may_fail = any(_may_fail(part) for part in walk(node))
        self._cache: dict[tuple[Value, ...], int] = {}

    def outcomes(self, known: Known) -> int:
        try:
            values = tuple([known[aspect] for aspect in self._order])
        except KeyError:
            return self._early(known)
        found = self._cache.get(values)
        if found is None:
            found = self._cache[values] = self._evaluated(dict(zip(self._order, values, strict=True)))
        return found

    def _early(self, known: Known) -> int:  # noqa: ARG002 - what a kind of atom may know before all is known
        return ANY if self._may_fail else TRUE | FALSE

    def _evaluated(self, values: Known) -> int:
        try:
            value = value_of(self._node, names_of(values, self._space, {}))
        except Failed:
            return ERROR
        except NotKnown:
            return ANY
        if value is True:
            return TRUE
        return FALSE if value is False else ANY


class _HasLabel(_Atom):
    """`"x" in request.labels`: true as soon as the request is known to have it, whoever's it is."""

    __slots__ = ()

    def _early(self, known: Known) -> int:
        return TRUE if any(known.get(aspect) for aspect in self._order if aspect != TENANT) else TRUE | FALSE


class _Match(Formula):
    """`text.matches(pattern)`: known of texts that stand for themselves, free of those that stand for many."""

    __slots__ = ("_aspect", "_free", "_pattern", "_space")

    def __init__(self, pattern: str, space: Space, aspect: Aspect, free: Aspect) -> None:
        super().__init__(frozenset({aspect, free}))
        self._pattern, self._space = pattern, space
        self._aspect, self._free = aspect, free

    def outcomes(self, known: Known) -> int:
        if self._aspect not in known:
            return ANY
        text = known[self._aspect]
        if text is None:  # a map has no such entry
            return ERROR
        if self._space.stands_for_itself(self._aspect, text):
            found = is_match(self._pattern, text)
            return ERROR if found is None else TRUE if found else FALSE
        return int(known.get(self._free, TRUE | FALSE)) & (TRUE | FALSE) or FALSE


class _Free(Formula):
    """An atom of which it is not known when it has which outcome."""

    __slots__ = ("_aspect",)

    def __init__(self, aspect: Aspect) -> None:
        super().__init__(frozenset({aspect}))
        self._aspect = aspect

    def outcomes(self, known: Known) -> int:
        found = known.get(self._aspect, ANY)
        return int(found)


class _Logical(Formula):
    __slots__ = ("_parts", "_table")

    def __init__(self, parts: tuple[Formula, ...], table: tuple[tuple[int, ...], ...]) -> None:
        super().__init__(frozenset[Aspect]().union(*(part.aspects for part in parts)))
        self._parts = parts
        self._table = table

    def outcomes(self, known: Known) -> int:
        first, *rest = self._parts
        found = first.outcomes(known)
        for part in rest:
            found = self._table[found][part.outcomes(known)]
        return found


class _Not(Formula):
    __slots__ = ("_part",)

    def __init__(self, part: Formula) -> None:
        super().__init__(part.aspects)
        self._part = part

    def outcomes(self, known: Known) -> int:
        found = self._part.outcomes(known)
        return (found & ERROR) | (TRUE if found & FALSE else 0) | (FALSE if found & TRUE else 0)


class _Choice(Formula):
    __slots__ = ("_condition", "_otherwise", "_then")

    def __init__(self, condition: Formula, then: Formula, otherwise: Formula) -> None:
        super().__init__(condition.aspects | then.aspects | otherwise.aspects)
        self._condition, self._then, self._otherwise = condition, then, otherwise

    def outcomes(self, known: Known) -> int:
        condition = self._condition.outcomes(known)
        found = condition & ERROR
        if condition & TRUE:
            found |= self._then.outcomes(known)
        if condition & FALSE:
            found |= self._otherwise.outcomes(known)
        return found


def _table(decisive: int, other: int) -> tuple[tuple[int, ...], ...]:
    """For `&&` (decisive: false) and `||` (decisive: true): the possible outcomes of two sides -> those of both."""

    def single(one: int, two: int) -> int:
        if decisive in (one, two):
            return decisive
        return ERROR if ERROR in (one, two) else other

    def possible(ones: int, twos: int) -> int:
        pairs = [(one, two) for one in (1, 2, 4) if ones & one for two in (1, 2, 4) if twos & two]
        found = 0
        for one, two in pairs:
            found |= single(one, two)
        return found

    return tuple(tuple(possible(ones, twos) for twos in range(8)) for ones in range(8))


_AND, _OR = _table(FALSE, TRUE), _table(TRUE, FALSE)


class Formulas:
    """Makes formulas over one space.

    With `strict`, atoms that the space does not cover are free. Without, they are evaluated at the values that it has,
    which finds examples and proves nothing.
    """

    def __init__(self, space: Space, *, strict: bool) -> None:
        self._space = space
        self._strict = strict
        self.free: set[Aspect] = set()
        """The free atoms that were met, as aspects of their own; their values are outcomes."""

    def make(self, tree: Node) -> Formula:
        """The formula of a condition."""
        if isinstance(tree, Call):
            match tree.function:
                case "_&&_" | "_||_":
                    parts = tuple(self.make(argument) for argument in tree.arguments)
                    return _Logical(parts, _AND if tree.function == "_&&_" else _OR)
                case "!_":
                    return _Not(self.make(tree.arguments[0]))
                case "_?_:_":
                    condition, then, otherwise = tree.arguments
                    return _Choice(self.make(condition), self.make(then), self.make(otherwise))
                case _:
                    pass
        return self._atom(tree)

    def _atom(self, node: Node) -> Formula:
        if self._strict and not ((_is_covered(node) and self._has_all(node)) or self._is_covered_part(node)):
            aspect = FREE + _shape(node)
            self.free.add(aspect)
            text, pattern = _matched(node)
            return _Match(pattern, self._space, text, aspect) if text in self._space.domains else _Free(aspect)
        label = _label_asked(node)
        if label is not None:
            held = any(label in tenant.labels for tenant in self._space.tenants)
            return _HasLabel(node, self._space, self._known({LABEL + label} | ({TENANT} if held else set())))
        return _Atom(node, self._space, self._known(self._aspects(node)))

    def _has_all(self, node: Node) -> bool:
        """The space has every kind of text that `node` tells apart."""
        if isinstance(node, Loop):
            return self._space.has_all_labels
        texts = {text_aspect(part) for part in walk(node)} - {None}
        return all(self._space.has_all_texts(aspect) for aspect in texts if aspect is not None)

    def _is_covered_part(self, node: Node) -> bool:
        """`text.contains("part")`, while the space has the parts in all combinations."""
        if not (isinstance(node, Call) and node.function == "contains" and isinstance(node.arguments[1], Constant)):
            return False
        aspect = text_aspect(node.arguments[0])
        return aspect is not None and self._space.has_all_parts(aspect) and self._space.has_all_texts(aspect)

    def _known(self, aspects: set[Aspect]) -> frozenset[Aspect]:
        return frozenset(aspect for aspect in aspects if aspect in self._space.domains)

    def _aspects(self, node: Node) -> set[Aspect]:
        entry = entry_aspect(node)
        if entry is not None:
            return {entry}
        if isinstance(node, Name):
            match node.name:
                case "tenant.name" | "tenant.region" | "tenant.labels":
                    return {TENANT}
                case "request.labels":
                    return {TENANT, *(aspect for aspect in self._space.domains if aspect.startswith(LABEL))}
                case "backend.unhealthy":
                    return {aspect for aspect in self._space.domains if aspect.startswith(FAILS)}
                case "request.metadata" | "request.headers":
                    return {aspect for aspect in self._space.domains if aspect.startswith(f"{node.name} ")}
                case _:
                    return {node.name}
        if isinstance(node, Call) and node.function == "@in" and _is_name(node.arguments[1], "backend.unhealthy"):
            first = node.arguments[0]
            if isinstance(first, Constant):
                return {FAILS + str(first.value)}
        return {aspect for child in children(node) for aspect in self._aspects(child)}


def _matched(node: Node) -> tuple[Aspect, str]:
    """The text and the pattern of `text.matches("pattern")`; empty ones for anything else."""
    if isinstance(node, Call) and node.function == "matches" and isinstance(node.arguments[1], Constant):
        return text_aspect(node.arguments[0]) or "", str(node.arguments[1].value)
    return "", ""


def _label_asked(node: Node) -> str | None:
    if isinstance(node, Call) and node.function == "@in":
        first, second = node.arguments
        if isinstance(first, Constant) and _is_name(second, "request.labels"):
            return str(first.value)
    return None


# --- what the space covers ------------------------------------------------------------------------------------

_FINITE = frozenset({"tenant.name", "tenant.region", "tenant.labels", MODEL, "request.hour"})
_TRUTHS = frozenset({"request.stream", "request.tools", "request.images", "request.audio", "request.json_output"})
_NUMBERS = frozenset({"request.prompt_tokens", "request.max_tokens", "request.n", "budget.left"})
_ORDERED = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})
_ON_TEXTS = frozenset({"startsWith", "endsWith"})


def _is_covered(node: Node) -> bool:
    """Between two requests of one class, `node` has one outcome."""
    if _is_finite(node):
        return True
    if isinstance(node, Select):
        return node.is_test and entry_aspect(node) is not None
    if isinstance(node, Loop):
        return _is_covered_loop(node)
    return isinstance(node, Call) and len(node.arguments) == 2 and _is_covered_call(node)


def _is_covered_call(node: Call) -> bool:
    one, other = node.arguments
    if node.function == "@in":
        return entry_aspect(node) is not None or _is_covered_membership(one, other)
    if node.function in _ORDERED:
        return _is_covered_comparison(node.function, one, other) or _is_covered_comparison(node.function, other, one)
    return node.function in _ON_TEXTS and text_aspect(one) is not None and isinstance(other, Constant)


def _is_covered_membership(one: Node, other: Node) -> bool:
    if isinstance(one, Constant) and isinstance(other, Name):
        return other.name in {"request.labels", "backend.unhealthy"}
    if text_aspect(one) is not None:
        return _is_texts(other)
    return isinstance(one, Name) and one.name in _NUMBERS and _are_constants(other)


def _is_covered_comparison(function: str, one: Node, other: Node) -> bool:
    if isinstance(one, Name) and one.name in _NUMBERS:
        return isinstance(other, Constant)
    if function in {"_==_", "_!=_"} and text_aspect(one) is not None:
        return isinstance(other, Constant) or (isinstance(other, Name) and other.name in _FINITE)
    return False


def _is_covered_loop(node: Loop) -> bool:
    """`request.labels.exists(l, …)` and `all`, with what is asked of each label covered as a text would be."""
    if not _is_name(node.over, "request.labels"):
        return False
    step = node.step
    if not (isinstance(step, Call) and step.function in {"_||_", "_&&_"} and _is_name(node.result, node.accumulator)):
        return False
    for part in walk(step.arguments[1]):
        if isinstance(part, Name) and part.name not in {node.variable, "tenant.labels"}:
            return False
        if isinstance(part, Call) and part.function not in {"_||_", "_&&_", "!_", "_==_", "_!=_", "@in", "startsWith"}:
            return False
        if isinstance(part, Loop | Select | Unknown):
            return False
        if isinstance(part, Call) and part.function == "startsWith" and not isinstance(part.arguments[1], Constant):
            return False
    return True


def _is_finite(node: Node) -> bool:
    """It depends on nothing but aspects of which the space has every value."""
    for part in walk(node):
        if isinstance(part, Name) and part.name not in _FINITE | _TRUTHS | {"request.logprobs", "backend.edge_ready"}:
            return False
        if isinstance(part, Unknown | Loop):
            return False
    return True


def _is_texts(node: Node) -> bool:
    return _are_constants(node) or (isinstance(node, Name) and node.name == "tenant.labels")


def _are_constants(node: Node) -> bool:
    return isinstance(node, ListOf) and all(isinstance(element, Constant) for element in node.elements)


def _is_name(node: Node, name: str) -> bool:
    return isinstance(node, Name) and node.name == name


def _may_fail(node: Node) -> bool:
    if isinstance(node, Select):
        return not node.is_test
    if isinstance(node, Unknown):
        return True
    return isinstance(node, Call) and node.function in {"_[_]", "_+_", "_-_", "_*_", "_/_", "_%_", "-_", "matches"}


def _shape(node: Node) -> str:
    """A text that is equal for equal expressions, wherever they stand."""
    match node:
        case Constant():
            return repr(node.value)
        case Name():
            return node.name
        case Select():
            return f"{'has ' if node.is_test else ''}{_shape(node.operand)}.{node.field}"
        case Call():
            return f"{node.function}({', '.join(_shape(argument) for argument in node.arguments)})"
        case ListOf():
            return f"[{', '.join(_shape(element) for element in node.elements)}]"
        case Loop():
            parts = ", ".join(_shape(part) for part in children(node))
            return f"fold({node.variable}, {node.accumulator}, {parts})"
        case _:
            return f"unknown at {id(node)}"
