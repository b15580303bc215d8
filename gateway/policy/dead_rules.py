"""Rules that can never do anything: unreachable routes and fallbacks, constraints that leave nothing.

Only what is dead for every tenant that there could be is a mistake: a constraint for tenants of a region may well stand
there before the first of them comes. Nothing is said where the search is not through.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from gateway.classification.kinds import LABELS, UNCLASSIFIED
from gateway.inference.deployment import Deployment
from gateway.policy.compiled import CompiledPolicy, Route
from gateway.policy.document import Document
from gateway.policy.evaluate import Value
from gateway.policy.literals import Known, odd_literals
from gateway.policy.mistakes import Mark, Mistakes, nearest
from gateway.policy.outcomes import ERROR, FALSE, TRUE, Formula, Formulas
from gateway.policy.reach import space_of, ways
from gateway.policy.search import Effort, TooLarge, Wanted, search
from gateway.policy.space import MODEL, Aspect, Space, TenantFacts
from gateway.policy.syntax import Call, Constant, ListOf, Name, Node, walk
from gateway.policy.yaml_file import Path

_MOST_CHOICES = 60_000
_MOST_LABELS = 4

Limits = Mapping[Aspect, Sequence[Value]]


def look_for_dead_rules(policy: CompiledPolicy, document: Document, mistakes: Mistakes) -> None:
    """Note what is dead in `policy`; places are those of `document`."""
    look = _Look(policy, document, mistakes, Effort(_MOST_CHOICES))
    try:
        look.at_requirements()
        look.at_constraints()
        look.at_routes()
        look.at_fallbacks()
        look.at_tenants()
    except TooLarge:
        return


def look_at_literals(policy: CompiledPolicy, document: Document, mistakes: Mistakes) -> None:
    """Note what conditions compare with something that it can never be."""
    tenants = [found.tenant for found in policy.tenants.values()]
    known = Known(
        models=policy.models,
        deployments=policy.deployments,
        tenants=policy.tenants,
        regions={tenant.region for tenant in tenants if tenant.region},
        headers={header for proxy in policy.trusted_proxies for header in proxy.headers},
        tenant_labels={label for tenant in tenants for label in tenant.labels},
        labels=_labels_given(policy, document),
    )
    rules = [("constraints", rule.name, rule.when) for rule in policy.constraints]
    rules += [("routes", rule.name, rule.when) for rule in policy.routes]
    trees = [(section, name, policy.conditions.trees[when]) for section, name, when in rules if when is not None]
    trees += [
        ("invariants", rule.name, rule.condition.tree) for rule in policy.invariants if rule.condition is not None
    ]
    for section, name, tree in trees:
        index = _index(document, section, name)
        source = str(document.lists[section][index]["when"])
        for odd in odd_literals(tree, known):
            before = source[: max(odd.offset, 0)]
            line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
            mark = document.mark((section, index, "when")).inside(line, column)
            (mistakes.add if odd.is_certain else mistakes.warn)(mark, f"`when`: {odd.message}")


def _labels_given(policy: CompiledPolicy, document: Document) -> set[str]:
    """The labels that a request gets from its tenant, from a tenant's dictionary or from the classifier."""
    entries = [entry for tenant in document.mappings["tenants"].values() for entry in tenant.get("dictionary", [])]
    found = {str(entry["label"]) for entry in entries}.union(*(each.tenant.labels for each in policy.tenants.values()))
    return found.union([UNCLASSIFIED], *LABELS.values())


def _index(document: Document, section: str, name: str) -> int:
    """Where the entry of this name stands in the document's list."""
    entries = document.lists[section]
    return next(index for index, entry in enumerate(entries) if isinstance(entry, dict) and entry.get("name") == name)


class _World:
    """A space with the formulas of the policy's conditions in it."""

    def __init__(self, policy: CompiledPolicy, space: Space) -> None:
        self.space = space
        maker = Formulas(space, strict=True)
        self.formulas: tuple[Formula, ...] = tuple(maker.make(tree) for tree in policy.conditions.trees)


class _Look:
    def __init__(self, policy: CompiledPolicy, document: Document, mistakes: Mistakes, effort: Effort) -> None:
        self._policy = policy
        self._document = document
        self._mistakes = mistakes
        self._effort = effort
        self._real = _World(policy, space_of(policy))
        self._any_tenant = _World(policy, space_of(policy, _thinkable_tenants(policy)))

    def at_constraints(self) -> None:
        """Constraints that never apply, or that nothing meets."""
        for constraint in self._policy.constraints:
            path: Path = ("constraints", _index(self._document, "constraints", constraint.name))
            if not constraint.allowed and not constraint.denies:
                deny = "if such requests are to be refused, say `deny: true`"
                message = f"no deployment meets `{constraint.name}`; {deny}"
                self._mistakes.add(self._document.name_mark((*path, "require")), message)
            if constraint.when is not None:
                self._say_dead([(constraint.when, TRUE | ERROR)], (*path, "when"), "never true, so it never applies")

    def at_requirements(self) -> None:
        """Regions and terms that no backend has, where one has nearly the same."""
        backends = self._policy.backends.values()
        regions = {backend.region for backend in backends if backend.region}
        terms = {term for backend in backends for term in backend.compliance}
        met = {rule.name for rule in self._policy.constraints if rule.allowed}
        rules = [("constraints", rule.name, rule.regions, rule.compliance) for rule in self._policy.constraints]
        rules += [("invariants", rule.name, rule.regions, rule.compliance) for rule in self._policy.invariants]
        for section, name, patterns, demanded in rules:
            at: Path = (section, _index(self._document, section, name), "require")
            note = self._mistakes.warn if section == "invariants" or name in met else self._mistakes.add
            for place, pattern in enumerate(patterns):
                mark = self._document.mark((*at, "region", place))
                if not pattern.endswith("*"):
                    if pattern not in regions and (near := nearest(pattern, regions)):
                        note(mark, f"no backend is in `{pattern}`; did you mean `{near[0]}`?")
                elif meant := _nearest_beginning(pattern[:-1], regions):
                    note(mark, f"no backend's region begins with `{pattern[:-1]}`; did you mean `{meant}*`?")
            for place, alternatives in enumerate(demanded):
                for term in sorted(alternatives - terms):
                    if near := nearest(term, terms):
                        note(
                            self._term_mark((*at, "compliance", place), term),
                            f"no backend has `{term}`; did you mean `{near[0]}`?",
                        )

    def _term_mark(self, path: Path, term: str) -> Mark:
        """Where a term stands among those that an entry gives for choice."""
        section, index, *inside = path
        entry: Any = self._document.lists[str(section)][int(index)]
        for step in inside:
            entry = entry[step]
        found = re.search(rf"(?<![\w.-]){re.escape(term)}(?![\w.-])", str(entry))
        return self._document.mark(path).inside(1, found.start() + 1 if found else 1)

    def at_routes(self) -> None:
        """Routes whose condition is never true, or whose requests are all taken by routes above."""
        for index, route in enumerate(self._policy.routes):
            path: Path = ("routes", _index(self._document, "routes", route.name))
            if route.when is not None and self._say_dead([(route.when, TRUE)], (*path, "when"), "never true"):
                continue
            place = (*path, "name" if route.when is None else "when")
            self._say_dead(self._reaching(index), place, "never reached: the routes above take all that it matches")

    def at_fallbacks(self) -> None:
        """Models of a route that can never be used there."""
        for index, route in enumerate(self._policy.routes):
            at = _index(self._document, "routes", route.name)
            for key, names in (("models", route.models), ("fallback", route.fallback_models)):
                for place, name in enumerate(names):
                    self._look_at_model(route, index, name, ("routes", at, key, place))

    def _look_at_model(self, route: Route, index: int, name: str, path: Path) -> None:
        own = self._policy.models.get(name, ())
        used: dict[str, tuple[Deployment, list[str]]] = {}
        is_fallback = path[2] == "fallback"
        for model in self._policy.models:
            for way in ways(self._policy, route, model):
                if way.deployment in own and (way.role == "fallback") == is_fallback and way.beside is None:
                    used.setdefault(way.deployment.id, (way.deployment, []))[1].append(model)
        if not used:
            what = (
                "all of it stands in `models` already" if is_fallback else f"mode {route.mode.value} uses only the edge"
            )
            self._mistakes.add(self._document.mark(path), f"`{name}` adds nothing here: {what}")
            return
        if any(
            self._is_possible(self._real, [*self._reaching(index), *self._unguarded(found)], {MODEL: models})
            for found, models in used.values()
        ):
            return
        guards = {
            guard.name
            for found, _ in used.values()
            for guard in self._policy.constraints
            if not guard.allowed >> self._policy.positions[found.id] & 1
        }
        if not self._is_possible(self._real, self._reaching(index), {}) or not guards:
            return
        named = " and ".join(f"`{guard}`" for guard in sorted(guards))
        self._mistakes.add(self._document.mark(path), f"`{name}` is never used here: {named} always removes it")

    def at_tenants(self) -> None:
        """Tenants for which the constraints leave nothing, whatever they ask."""
        for name, found in self._policy.tenants.items():
            space = space_of(self._policy, [TenantFacts(name, found.tenant.region, found.tenant.labels)])
            world = _World(self._policy, space)
            if self._reaches_something(world):
                continue
            always = [
                constraint
                for constraint in self._policy.constraints
                if constraint.when is None or not self._is_possible(world, [(constraint.when, FALSE)], {})
            ]
            if not always:
                mark = self._document.name_mark(("tenants", name))
                self._mistakes.warn(mark, f"no route ever serves tenant `{name}`")
                continue
            index = _index(self._document, "constraints", always[-1].name)
            named = " and ".join(f"`{constraint.name}`" for constraint in always)
            mark = self._document.mark(("constraints", index, "name"))
            self._mistakes.add(mark, f"nothing is left for tenant `{name}`: {named} always applies to it")

    def _reaches_something(self, world: _World) -> bool:
        for index, route in enumerate(self._policy.routes):
            for model in self._policy.models:
                for way in ways(self._policy, route, model):
                    wanted = [*self._reaching(index), *self._unguarded(way.deployment)]
                    if way.beside is None and self._is_possible(world, wanted, {MODEL: [model]}):
                        return True
                if route.primary is not None:
                    break
        return False

    # --- asking -------------------------------------------------------------------------------------------------

    def _reaching(self, index: int) -> list[tuple[int | None, int]]:
        earlier = [(route.when, FALSE | ERROR) for route in self._policy.routes[:index]]
        return [(self._policy.routes[index].when, TRUE), *earlier]

    def _unguarded(self, deployment: Deployment) -> Iterator[tuple[int | None, int]]:
        position = self._policy.positions[deployment.id]
        return ((guard.when, FALSE) for guard in self._policy.constraints if not guard.allowed >> position & 1)

    def _is_possible(self, world: _World, asked: Sequence[tuple[int | None, int]], limits: Limits) -> bool:
        """Some request has these outcomes; a condition that is None is always true."""
        if any(when is None and not outcomes & TRUE for when, outcomes in asked):
            return False
        wanted = [Wanted(world.formulas[when], outcomes) for when, outcomes in asked if when is not None]
        return next(search(world.space, wanted, self._effort, limits), None) is not None

    def _say_dead(self, asked: Sequence[tuple[int | None, int]], path: Path, what: str) -> bool:
        """Note it when no request has these outcomes. True when none has, of the tenants that there are."""
        if self._is_possible(self._real, asked, {}):
            return False
        if not self._is_possible(self._any_tenant, asked, {}):
            self._mistakes.add(self._document.mark(path), f"this is {what}")
        return True


def _nearest_beginning(beginning: str, regions: Collection[str]) -> str:
    """What was meant where no region begins so; empty where one does, or none is near: the first may yet come."""
    if any(region.startswith(beginning) for region in regions):
        return ""
    meant = beginning.removesuffix(".")  # as in a regular expression
    known = {region[: len(meant)] for region in regions}
    swapped = [each for each in sorted(known) if sorted(each.lower()) == sorted(meant.lower().replace("_", "-"))]
    return next(iter(swapped or nearest(meant, known)), "")


def _thinkable_tenants(policy: CompiledPolicy) -> list[TenantFacts]:
    """Tenants that a condition could be about, next to those that there are."""
    named: dict[str, set[str]] = {"tenant.name": {""}, "tenant.region": {""}, "tenant.labels": set()}
    for tree in policy.conditions.trees:
        for part in walk(tree):
            if isinstance(part, Call):
                for asked, constant in itertools.permutations(part.arguments, 2):
                    if isinstance(asked, Name) and asked.name in named:
                        named[asked.name] |= set(_texts(constant))
    labels = sorted(named["tenant.labels"] | {label for t in policy.tenants.values() for label in t.tenant.labels})
    sets = [frozenset(labels), frozenset[str](), *(frozenset({label}) for label in labels)]
    if len(labels) <= _MOST_LABELS:
        sets += [frozenset(some) for size in range(2, len(labels)) for some in itertools.combinations(labels, size)]
    regions = named["tenant.region"] | {"another"}
    # Of a tenant that there is, all is known.
    there = [TenantFacts(name, known.tenant.region, known.tenant.labels) for name, known in policy.tenants.items()]
    others = sorted((named["tenant.name"] | {"another"}) - set(policy.tenants))
    thinkable = itertools.product(others, sorted(regions), dict.fromkeys(sets))
    return [*there, *(TenantFacts(name, region, some) for name, region, some in thinkable)]


def _texts(node: Node) -> Iterator[str]:
    if isinstance(node, Constant) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, ListOf):
        for element in node.elements:
            yield from _texts(element)
