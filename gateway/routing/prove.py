"""Whether a policy keeps its invariants: for every request, on every way on which a deployment can be reached.

For an invariant (`when` implies `require`) and a deployment that does not meet it, a leak is a request for which `when`
is true, no constraint that would remove the deployment applies, and the route that decides may use it: as its first
choice, as fallback, to draft, or when the budget is spent. Stores of passages are places like deployments
(`prove_stores`). `policy.search` finds such a request or shows that there is none. What it finds is put to `decide`
before it is called a leak: a counterexample is always a request that `explain` replays. A condition that cannot be
evaluated counts as true, for an invariant as for a constraint.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal

import msgspec

from gateway.errors import Mistake
from gateway.inference.deployment import Deployment
from gateway.inference.request import DraftWish
from gateway.policy.compiled import CompiledPolicy, Constraint, Invariant, Route, objection
from gateway.policy.evaluate import Value
from gateway.policy.facts import Facts
from gateway.policy.outcomes import ERROR, FALSE, TRUE, Formulas
from gateway.policy.reach import Way, space_of, ways
from gateway.policy.search import Effort, TooLarge, Wanted, search
from gateway.policy.space import FAILS, LABEL, MODEL, TENANT, Aspect, Space
from gateway.routing.decide import decide
from gateway.routing.decision import Decision
from gateway.routing.prove_stores import (
    RETRIEVAL,
    SEARCH,
    StoreWay,
    guards_of,
    limits_of,
    store_leaks,
    store_ways,
)

MOST_CHOICES = 300_000
"""Of the search, over all invariants: a few seconds."""
_MOST_EXAMPLES = 64
"""Put to `decide` for one way before it is given up as neither proved nor broken."""

Verdict = Literal["holds", "broken", "not proved"]
Limits = Mapping[Aspect, Sequence[Value]]


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """A request that breaks an invariant."""

    facts: Facts
    deployment: str
    role: str
    """How it is reached: `first choice`, `fallback`, `draft`, `when the budget is spent`; a store by `retrieval` or
    by `search`."""
    route: str
    reason: str
    """What the deployment lacks."""
    is_unknown: bool = False
    """The invariant's condition could not be evaluated, which counts as true."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about one invariant."""

    invariant: str
    verdict: Verdict
    leak: Leak | None = None
    why: str = ""
    """Why it is neither proved nor broken."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about a policy."""

    policy_version: str
    outcomes: tuple[Outcome, ...]
    classes: int
    """Classes of requests that the policy can tell apart; all of them are covered by what holds."""
    choices: int
    """Values that were tried on the way."""

    @property
    def holds(self) -> bool:
        """Every invariant is proved."""
        return all(outcome.verdict == "holds" for outcome in self.outcomes)


def prove(policy: CompiledPolicy, *, most_choices: int = MOST_CHOICES) -> Proof:
    """Check every invariant of `policy` over all requests. Pure; the effort is bounded by `most_choices`."""
    space = space_of(policy, searches=bool(policy.stores))
    prover = _Prover(policy, space)
    outcomes, choices = [], 0
    for done, invariant in enumerate(policy.invariants):
        # What the easy ones leave is for those that come after; a hard one takes nobody else's share.
        effort = Effort((most_choices - choices) // (len(policy.invariants) - done))
        outcomes.append(prover.outcome(invariant, effort))
        choices += effort.spent
    return Proof(policy_version=policy.version, outcomes=tuple(outcomes), classes=space.classes, choices=choices)


def broken(policy: CompiledPolicy, proof: Proof) -> list[Mistake]:
    """A mistake for each broken invariant, where it stands."""
    return [
        _at(invariant.place, told(outcome))
        for invariant, outcome in zip(policy.invariants, proof.outcomes, strict=True)
        if outcome.verdict == "broken"
    ]


def not_proved(policy: CompiledPolicy, proof: Proof) -> list[Mistake]:
    """A warning for each invariant that is neither proved nor broken, where it stands."""
    return [
        _at(invariant.place, told(outcome))
        for invariant, outcome in zip(policy.invariants, proof.outcomes, strict=True)
        if outcome.verdict == "not proved"
    ]


def _at(place: Mistake, message: str) -> Mistake:
    return Mistake(place.file, place.line, place.column, message)


def told(outcome: Outcome) -> str:
    """One sentence about an invariant."""
    leak = outcome.leak
    if leak is not None:
        way = f"{leak.role} of route `{leak.route}`" if leak.route else f"{leak.role} by a client"
        unknown = "; its `when` cannot be evaluated there, which counts as true: ask `has(…)` first"
        return (
            f"invariant `{outcome.invariant}` is broken: {leak.deployment} can be reached ({way}) and {leak.reason}; "
            f"such a request: {shlex.join(options(leak.facts))}{unknown * leak.is_unknown}"
        )
    if outcome.verdict == "holds":
        return f"invariant `{outcome.invariant}` holds"
    return f"invariant `{outcome.invariant}` is not proved: {outcome.why}"


class _Prover:
    def __init__(self, policy: CompiledPolicy, space: Space) -> None:
        self._policy = policy
        self._space = space
        self._effort = Effort(0)
        strict, lenient = Formulas(space, strict=True), Formulas(space, strict=False)
        self._makers = (strict, lenient)
        trees = policy.conditions.trees
        self._formulas = tuple(tuple(maker.make(tree) for tree in trees) for maker in self._makers)

    def outcome(self, invariant: Invariant, effort: Effort) -> Outcome:
        """Search for a leak of one invariant."""
        self._effort, unsure = effort, ""
        try:
            for bad in self._policy.deployments.values():
                if not invariant.objection(bad):
                    continue
                for found in self._leaks(invariant, bad):
                    if isinstance(found, Leak):
                        return Outcome(invariant=invariant.name, verdict="broken", leak=found)
                    unsure = unsure or found
            for way in store_ways(self._policy, invariant):
                leak = self._store_leak(invariant, way)
                if isinstance(leak, Leak):
                    return Outcome(invariant=invariant.name, verdict="broken", leak=leak)
                unsure = unsure or leak
        except TooLarge:
            unsure = (
                f"there are {self._space.classes:,} classes of requests, and after {self._effort.spent:,} choices the "
                "search was not through"
            )
        if unsure:
            return Outcome(invariant=invariant.name, verdict="not proved", why=unsure)
        return Outcome(invariant=invariant.name, verdict="holds")

    def _leaks(self, invariant: Invariant, bad: Deployment) -> Iterator[Leak | str]:
        """Leaks to `bad`; a text where there may be one that could not be found."""
        unguarded = self._unguarded(invariant, (bad,))
        if unguarded is None or not self._is_possible(unguarded[0], {}):
            return
        for position, route in enumerate(self._policy.routes):
            if route.when is None or self._is_possible(self._reaching(unguarded[0], position, 0), {}):
                yield from self._leaks_of_route(invariant, bad, route, position)

    def _leaks_of_route(
        self, invariant: Invariant, bad: Deployment, route: Route, position: int
    ) -> Iterator[Leak | str]:
        found: dict[tuple[str, str], tuple[Way, list[str]]] = {}
        for model in self._policy.models:
            for way in ways(self._policy, route, model):
                if way.deployment == bad:
                    beside = "" if way.beside is None else way.beside.id
                    found.setdefault((way.role, beside), (way, []))[1].append(model)
        for way, models in found.values():
            unguarded = self._unguarded(invariant, (bad,) if way.beside is None else (bad, way.beside))
            if unguarded is None:
                continue
            limits = self._limits(way, models)
            if self._is_possible(self._reaching(unguarded[0], position, 0), limits):
                leak = self._example(invariant, self._reaching(unguarded[1], position, 1), limits)
                yield leak or self._doubt(route, bad)

    def _unguarded(
        self, invariant: Invariant, needed: tuple[Deployment, ...]
    ) -> tuple[list[Wanted], list[Wanted]] | None:
        """The invariant speaks of the request and no constraint removes `needed`; strictly, and leniently.

        None when a constraint without a condition removes one of them.
        """
        guards = [
            constraint
            for constraint in self._policy.constraints
            if any(not self._allows(constraint, deployment) for deployment in needed)
        ]
        if any(constraint.when is None for constraint in guards):
            return None
        found = []
        for maker, formulas in zip(self._makers, self._formulas, strict=True):
            wanted = []
            if invariant.condition is not None:
                wanted.append(Wanted(maker.make(invariant.condition.tree), TRUE | ERROR))
            wanted += [Wanted(formulas[guard.when], FALSE) for guard in guards if guard.when is not None]
            found.append(wanted)
        return found[0], found[1]

    def _store_leak(self, invariant: Invariant, way: StoreWay) -> Leak | str:
        """A request that comes this way to a store; a text where there may be one, empty where there is none."""
        guards, always = guards_of(self._policy, way.store)
        if always:
            return ""
        wanted: list[list[Wanted]] = []
        for kind, maker in enumerate(self._makers):
            asked = [Wanted(self._formulas[kind][when], outcomes) for when, outcomes in guards]
            if invariant.condition is not None:
                asked.append(Wanted(maker.make(invariant.condition.tree), TRUE | ERROR))
            wanted.append(asked if way.route is None else self._reaching(asked, way.route, kind))
        limits = limits_of(self._policy, way, self._space)
        if not self._is_possible(wanted[0], limits):
            return ""
        for chosen in islice(search(self._space, wanted[1], self._effort, limits), _MOST_EXAMPLES):
            aspects = {**{aspect: values[0] for aspect, values in limits.items()}, **chosen}
            found = store_leaks(self._policy, invariant, way, facts_of(aspects, self._space))
            if found is not None:
                facts, route = found
                reason = objection(way.store, invariant.regions, invariant.compliance)
                role = SEARCH if way.route is None else RETRIEVAL
                return Leak(facts=facts, deployment=f"store {way.store.name}", role=role, route=route, reason=reason)
        return f"store `{way.store.name}` may be reached, and no example could be made"

    def _allows(self, constraint: Constraint, deployment: Deployment) -> bool:
        return bool(constraint.allowed >> self._policy.positions[deployment.id] & 1)

    def _reaching(self, wanted: list[Wanted], position: int, kind: int) -> list[Wanted]:
        """`wanted`, and the route at `position` is the first that matches."""
        formulas = self._formulas[kind]
        earlier = [route.when for route in self._policy.routes[:position]]
        when = self._policy.routes[position].when
        this = [] if when is None else [Wanted(formulas[when], TRUE)]
        return [*wanted, *this, *(Wanted(formulas[other], FALSE | ERROR) for other in earlier if other is not None)]

    def _limits(self, way: Way, models: list[str]) -> Limits:
        """Values with which the request can be served there."""
        limits: dict[Aspect, Sequence[Value]] = {MODEL: models}
        for deployment in filter(None, (way.deployment, way.beside)):
            for aspect, able in _abilities(deployment, way):
                if not able:
                    limits[aspect] = (False,)
            if deployment.is_edge or way.role == "draft":
                limits["request.n"] = (1,)
            if deployment.context_tokens is not None:
                for aspect in ("request.prompt_tokens", "request.max_tokens"):
                    values = limits.get(aspect, self._space.domains.get(aspect, (0,)))
                    limits[aspect] = [value for value in values if value < deployment.context_tokens]
        return {aspect: values for aspect, values in limits.items() if aspect in self._space.domains}

    def _is_possible(self, wanted: list[Wanted], limits: Limits) -> bool:
        return next(search(self._space, wanted, self._effort, limits), None) is not None

    def _example(self, invariant: Invariant, wanted: list[Wanted], limits: Limits) -> Leak | None:
        for chosen in islice(search(self._space, wanted, self._effort, limits), _MOST_EXAMPLES):
            aspects = {**{aspect: values[0] for aspect, values in limits.items()}, **chosen}
            facts = facts_of(aspects, self._space)
            leak = leak_of(self._policy, invariant, facts)
            if leak is not None:
                return leak
        return None

    def _doubt(self, route: Route, bad: Deployment) -> str:
        free = sorted(aspect for maker in self._makers for aspect in maker.free)
        what = "a condition compares in a way that cannot be enumerated" if free else "no example could be made"
        return f"route `{route.name}` may reach {bad.id}, and {what}"


def _abilities(deployment: Deployment, way: Way) -> Iterable[tuple[Aspect, bool]]:
    plain = not deployment.is_edge and way.role != "draft"
    return (
        ("request.tools", deployment.tools and way.role != "draft"),
        ("request.images", deployment.images and way.role != "draft"),
        ("request.json_output", deployment.json_output),
        ("request.audio", plain),
        ("request.logprobs", way.role != "draft"),
    )


def leak_of(policy: CompiledPolicy, invariant: Invariant, facts: Facts) -> Leak | None:
    """What the request of `facts` may reach against `invariant`; None when nothing."""
    holds = True if invariant.condition is None else policy.conditions.outcome(invariant.condition, facts)
    if holds is False:
        return None
    decision = decide(policy, facts)
    for deployment, role in reachable(decision):
        reason = invariant.objection(deployment)
        if reason:
            return Leak(
                facts=facts,
                deployment=deployment.id,
                role=role,
                route=decision.route,
                reason=reason,
                is_unknown=holds is None,
            )
    return None


def reachable(decision: Decision) -> Iterator[tuple[Deployment, str]]:
    """Everything that a decision lets a request reach, and in which role."""
    for place, deployment in enumerate(decision.deployments):
        yield deployment, "first choice" if place < decision.first_choices else "fallback"
    if decision.draft is not None:
        yield decision.draft, "draft"
    for deployment in decision.spent:
        yield deployment, "when the budget is spent"


def facts_of(aspects: Mapping[Aspect, Value], space: Space) -> Facts:
    """The facts of a request with these values, and otherwise as easy to serve as can be."""
    tenant = space.tenants[aspects.get(TENANT, 0)]
    plain = {kind: aspects[kind] for kind in aspects if " " not in kind and kind not in {TENANT, MODEL}}
    fields = {_FIELDS.get(name, name.partition(".")[2]): value for name, value in plain.items()}
    maps = {
        name: {
            aspect.partition(" ")[2]: value
            for aspect, value in aspects.items()
            if aspect.startswith(f"request.{name} ") and value is not None
        }
        for name in ("metadata", "headers")
    }
    return Facts(
        **{
            "edge_ready": True,
            **fields,
            **maps,
            "max_tokens": fields.get("max_tokens") or None,
            "tenant_name": tenant.name,
            "tenant_region": tenant.region,
            "tenant_labels": tenant.labels,
            "model": aspects.get(MODEL, space.domains[MODEL][0]),
            "labels": _given(aspects, LABEL),
            "unhealthy": _given(aspects, FAILS),
            "draft": DraftWish.FRAMES,
        }
    )


_FIELDS: Mapping[str, str] = {"budget.left": "budget_left", "backend.edge_ready": "edge_ready"}


def _given(aspects: Mapping[Aspect, Value], kind: str) -> frozenset[str]:
    return frozenset(
        aspect.removeprefix(kind) for aspect, value in aspects.items() if aspect.startswith(kind) and value
    )


def options(facts: Facts) -> list[str]:
    """The options with which `firstdraft policy explain` replays the request."""
    found = ["--tenant", facts.tenant_name, "--model", facts.model]
    texts = (("--feature", facts.feature), ("--language", facts.language))
    found += [word for option, text in texts if text for word in (option, text)]
    found += [word for label in sorted(facts.labels) for word in ("--label", label)]
    found += [word for name, text in sorted(facts.metadata.items()) for word in ("--metadata", f"{name}={text}")]
    found += [word for name, text in sorted(facts.headers.items()) for word in ("--header", f"{name}={text}")]
    numbers = (
        ("--prompt-tokens", facts.prompt_tokens, 0),
        ("--max-tokens", facts.max_tokens, None),
        ("--n", facts.n, 1),
        ("--hour", facts.hour, None),
        ("--budget-left", facts.budget_left, 1.0),
    )
    found += [word for option, number, usual in numbers if number != usual for word in (option, str(number))]
    found += ["--draft", facts.draft.value] if facts.draft is not None else []
    found += [option for option, given in (("--stream", facts.stream), ("--tools", facts.tools)) if given]
    also = (("images", facts.images), ("audio", facts.audio), ("json", facts.json_output), ("logprobs", facts.logprobs))
    found += [word for name, given in also if given for word in ("--with", name)]
    found += [word for name in sorted(facts.unhealthy) for word in ("--unhealthy", name)]
    return found if facts.edge_ready else [*found, "--no-edge"]
