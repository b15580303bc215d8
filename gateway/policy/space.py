"""All requests that a policy can tell apart, as a finite space.

A condition sees a request through *aspects*: its tenant, its feature, whether it has the label `health`, its prompt's
length … For each aspect there are finitely many values between which no condition of the policy can tell a difference:

  tenant         the policy's tenants, those alike in all that conditions may ask kept once
  texts          each text that a condition compares with; the shortest that begins with, ends in or contains what a
                 condition asks for, in all combinations; one that a regular expression matches; and one that is none
                 of these
  numbers        both sides of each limit that is named, and the limit itself; hours all 24
  labels         there or not, for each that is named, and one that is not; so are failing deployments
  metadata, headers   not there, or a text as above

One value of each aspect is one class of requests. An `Atom` is a part of a condition that cannot be taken apart any
more; one that uses an aspect in a way that this scheme does not cover (the length of a feature) is *free*:
when something is to be proved it may have any outcome.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.policy.evaluate import Value
from gateway.policy.syntax import Call, Constant, ListOf, Loop, Name, Node, Select, children
from gateway.policy.witnesses import witness

Aspect = str
_MOST_COMBINED = 3
"""Texts that `contains` asks for, combined in all ways; with more of them a text's values would be too many."""
_LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_FEATURE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?")

_WHOLE = {
    "request.prompt_tokens": (0, 2**40),
    "request.max_tokens": (0, 2**40),
    "request.n": (1, 128),
    "request.hour": (0, 23),
}
_TRUTHS = (
    *("request.stream", "request.tools", "request.images", "request.audio", "request.json_output"),
    *("request.logprobs", "backend.edge_ready"),
)
TENANT, MODEL, LABEL, FAILS = "tenant", "request.model", "label ", "fails "
_SIGNS = "zxqjkvwy0123456789hgfdbplmnucsriotae"
_MAPS = ("request.metadata", "request.headers")
_TENANTS = ("tenant.name", "tenant.region", "tenant.labels")


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """What a condition can ask about a tenant."""

    name: str
    region: str
    labels: frozenset[str]


@dataclass(slots=True)
class _Asked:
    """What conditions ask about one text."""

    equal: set[str] = field(default_factory=set)
    begins: set[str] = field(default_factory=set)
    ends: set[str] = field(default_factory=set)
    contains: set[str] = field(default_factory=set)
    matches: set[str] = field(default_factory=set)
    """Regular expressions."""

    def all(self) -> set[str]:
        return self.equal | self.begins | self.ends | self.contains


class Space:
    """The aspects of a policy's requests and their values. Built from the trees of all its conditions."""

    def __init__(
        self,
        trees: Iterable[Node],
        *,
        tenants: Sequence[TenantFacts],
        models: Sequence[str],
        deployments: Sequence[str],
        tells_names: bool = False,
    ) -> None:
        self._tenants = tenants
        self._models = tuple(models)
        self._deployments = tuple(deployments)
        self._texts: dict[Aspect, _Asked] = {}
        self._numbers: dict[Aspect, set[float]] = {}
        self._labels: set[str] = set()
        self._fails: set[str] = set()
        self._whole_labels, self._names_asked = False, tells_names
        self._mentioned: set[Aspect] = set()
        for tree in trees:
            self._note(tree)
        self.tenants = self._distinct_tenants()
        """One of each kind; an aspect's value is the position in here."""
        self.domains = self._domains()
        """Aspect -> its values, the least demanding first."""

    @property
    def classes(self) -> int:
        """How many classes of requests there are."""
        return math.prod(len(values) for values in self.domains.values())

    def has_all_parts(self, aspect: Aspect) -> bool:
        """Its texts have what `contains` asks for in all combinations."""
        return len(self._texts.get(aspect, _Asked()).contains) <= _MOST_COMBINED

    def has_all_texts(self, aspect: Aspect) -> bool:
        """It has a text for each combination of what conditions ask, one that is like none of them among them."""
        return bool(_sign_in_none(self._texts.get(aspect, _Asked()).all()))

    def stands_for_itself(self, aspect: Aspect, text: str) -> bool:
        """The value is one text and not an example of many: whatever is asked of it is known."""
        asked = self._texts.get(aspect, _Asked())
        return not text or text in asked.all() or (text in _witnesses(asked) and text not in _texts(asked))

    @property
    def has_all_labels(self) -> bool:
        """It has a label for each combination of what conditions ask of labels."""
        return bool(_sign_in_none(self._labels))

    # --- what conditions ask ------------------------------------------------------------------------------------

    def _note(self, node: Node) -> None:
        """Collect what `node` asks, of whatever is inside it."""
        if isinstance(node, Call) and node.function in _COMPARISONS:
            for one, other in itertools.permutations(node.arguments, 2):
                self._note_comparison(node.function, one, other)
        if isinstance(node, Loop) and isinstance(node.over, Name) and node.over.name == "request.labels":
            self._whole_labels = True
            self._labels |= {str(part.value) for part in _constants(node) if isinstance(part.value, str)}
        if isinstance(node, Name) and node.name == "tenant.name":
            self._names_asked = True
        self._mentioned |= _aspects_of(node)
        for child in children(node):
            self._note(child)

    def _note_comparison(self, function: str, one: Node, other: Node) -> None:
        aspect = text_aspect(one)
        constants = [part.value for part in _constants(other)]
        texts = {value for value in constants if isinstance(value, str)}
        if isinstance(one, Constant) and function == "@in" and isinstance(other, Name):
            if other.name == "request.labels":
                self._labels.add(str(one.value))
            elif other.name == "backend.unhealthy":
                self._fails.add(str(one.value))
        if isinstance(one, Name) and (one.name in _WHOLE or one.name == "budget.left"):
            self._numbers.setdefault(one.name, set()).update(
                value for value in constants if isinstance(value, int | float) and not isinstance(value, bool)
            )
        if aspect is None:
            return
        asked = self._texts.setdefault(aspect, _Asked())
        match function:
            case "startsWith":
                asked.begins |= texts
            case "endsWith":
                asked.ends |= texts
            case "contains":
                asked.contains |= texts
            case "matches":
                asked.matches |= texts
            case _:
                asked.equal |= texts
                if isinstance(other, Name) and other.name in {*_TENANTS, MODEL}:
                    asked.equal |= set(self._models) if other.name == MODEL else self._values_of_tenants(other.name)

    def _values_of_tenants(self, name: str) -> set[str]:
        if name == "tenant.labels":
            return {label for tenant in self._tenants for label in tenant.labels}
        return {tenant.name if name == "tenant.name" else tenant.region for tenant in self._tenants}

    def _distinct_tenants(self) -> tuple[TenantFacts, ...]:
        named = {text for asked in self._texts.values() for text in asked.all()}
        found: dict[tuple[str, str, frozenset[str]], TenantFacts] = {}
        for tenant in self._tenants:
            name = tenant.name if self._names_asked or tenant.name in named else ""
            found.setdefault((name, tenant.region, tenant.labels), tenant)
        return tuple(found.values()) or (TenantFacts("", "", frozenset()),)

    # --- values -------------------------------------------------------------------------------------------------

    def _domains(self) -> dict[Aspect, tuple[Value, ...]]:
        domains: dict[Aspect, tuple[Value, ...]] = {
            TENANT: tuple(range(len(self.tenants))),
            MODEL: self._models or ("",),
        }
        for name in _TRUTHS:
            if name in self._mentioned:
                # An edge that is ready can be reached in more ways than one that is not.
                domains[name] = (True, False) if name == "backend.edge_ready" else (False, True)
        for name in ("request.feature", "request.language"):
            if name in self._mentioned:
                domains[name] = self._text_values(name, _FEATURE if name == "request.feature" else None)
        for aspect in sorted(set(self._texts) | self._mentioned):
            if aspect.startswith(_MAPS):
                domains[aspect] = (None, *self._text_values(aspect, None))
        for name, (least, most) in _WHOLE.items():
            if name in self._mentioned:
                domains[name] = self._whole_values(name, least, most)
        if "budget.left" in self._mentioned:
            domains["budget.left"] = self._share_values()
        for label in sorted(self._label_values()):
            domains[LABEL + label] = (False, True)
        for deployment in sorted(self._fails & set(self._deployments)):
            domains[FAILS + deployment] = (False, True)
        return domains

    def _label_values(self) -> set[str]:
        labels = {label for label in self._labels if _LABEL.fullmatch(label)}
        if self._whole_labels:
            labels |= {text for text in _texts(_Asked(begins=self._labels)) if _LABEL.fullmatch(text)}
        return labels

    def _text_values(self, aspect: Aspect, shape: re.Pattern[str] | None) -> tuple[str, ...]:
        asked = self._texts.get(aspect, _Asked())
        found = ["", *sorted(asked.all()), *_texts(asked), *_witnesses(asked)]
        return tuple(dict.fromkeys(text for text in found if shape is None or shape.fullmatch(text)))

    def _whole_values(self, name: str, least: int, most: int) -> tuple[int, ...]:
        if name == "request.hour":
            return tuple(range(24))
        limits = {math.floor(limit) for limit in self._numbers.get(name, ()) if abs(limit) < most}
        around = {limit + step for limit in limits for step in (-1, 0, 1)} | {least, *limits}
        top = max(around) + 1
        return tuple(sorted(value for value in around | {top} if least <= value <= most))

    def _share_values(self) -> tuple[float, ...]:
        limits = sorted(
            {0.0, 1.0} | {float(limit) for limit in self._numbers.get("budget.left", ()) if 0 <= limit <= 1}
        )
        between = [(one + other) / 2 for one, other in itertools.pairwise(limits)]
        return tuple(sorted({*limits, *between}, reverse=True))


_COMPARISONS = frozenset(
    {"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in", "startsWith", "endsWith", "contains", "matches"}
)


def text_aspect(node: Node) -> Aspect | None:
    """The aspect that `node` reads, if it is one text of the request that clients choose freely."""
    if isinstance(node, Name) and node.name in {"request.feature", "request.language"}:
        return node.name
    return entry_aspect(node)


def entry_aspect(node: Node) -> Aspect | None:
    """The aspect of `map.key`, `map["key"]`, `has(map.key)`, as in `request.metadata key`."""
    if isinstance(node, Select) and isinstance(node.operand, Name) and node.operand.name in _MAPS:
        return f"{node.operand.name} {node.field}"
    if isinstance(node, Call) and node.function in {"_[_]", "@in"}:
        container, key = node.arguments if node.function == "_[_]" else reversed(node.arguments)
        if isinstance(container, Name) and container.name in _MAPS and isinstance(key, Constant):
            return f"{container.name} {key.value!s}"
    return None


def _aspects_of(node: Node) -> set[Aspect]:
    entry = entry_aspect(node)
    if entry is not None:
        return {entry}
    return {node.name} if isinstance(node, Name) else set()


def _constants(node: Node) -> list[Constant]:
    if isinstance(node, Constant):
        return [node]
    if isinstance(node, ListOf | Loop | Call):
        return [found for child in children(node) for found in _constants(child)]
    return []


def _texts(asked: _Asked) -> list[str]:
    """A text for each combination of beginning, contents and end that conditions tell apart.

    `p·f·t₁·f·t₂·f·s`, with a sign `f` that is in none of them: such a text begins with `p` and what `p` begins with,
    and with nothing longer; contains what p, t₁, t₂ and s contain; ends as s does. Any text is alike one of these.
    """
    fresh = _sign_in_none(asked.all())
    parts = sorted(asked.contains)[:_MOST_COMBINED]
    middles = [subset for size in range(len(parts) + 1) for subset in itertools.combinations(parts, size)]
    return [
        fresh.join((begin, *middle, end))
        for begin, middle, end in itertools.product(("", *sorted(asked.begins)), middles, ("", *sorted(asked.ends)))
        if begin or middle or end
    ] + [fresh]


def _witnesses(asked: _Asked) -> list[str]:
    """A text for each regular expression for which one is easily made."""
    return sorted({text for pattern in asked.matches if (text := witness(pattern)) is not None})


def _sign_in_none(texts: set[str]) -> str:
    """A letter or a digit that is in none of `texts`, empty when each is in one."""
    used = set().union(*texts)
    return next((sign for sign in _SIGNS if sign not in used), "")


def names_of(aspects: Mapping[Aspect, Value], space: Space, defaults: Mapping[str, Value]) -> dict[str, Value]:
    """The CEL variables of the request that has these values; what is not among them is as in `defaults`."""
    tenant = space.tenants[aspects.get(TENANT, 0)]
    names = dict(defaults)
    names.update({"tenant.name": tenant.name, "tenant.region": tenant.region, "tenant.labels": sorted(tenant.labels)})
    labels, fails = set(tenant.labels), set()
    maps: dict[str, dict[str, str]] = {name: {} for name in _MAPS}
    for aspect, value in aspects.items():
        kind, _, rest = aspect.partition(" ")
        if kind in maps:
            if value is not None:
                maps[kind][rest] = value
        elif aspect.startswith(LABEL):
            labels |= {rest} if value else set()
        elif aspect.startswith(FAILS):
            fails |= {rest} if value else set()
        elif aspect != TENANT:
            names[aspect] = value
    return {**names, **maps, "request.labels": sorted(labels), "backend.unhealthy": sorted(fails)}
