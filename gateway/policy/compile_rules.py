"""Specs of constraints and routes -> `Constraint` and `Route`, with their conditions checked."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from gateway.cache.rule import CacheRule
from gateway.errors import Mistake
from gateway.inference.deployment import Deployment
from gateway.inference.request import DraftWish
from gateway.policy.compile_backends import Places
from gateway.policy.compile_cascade import cascade_rule
from gateway.policy.compile_hedge import hedge_rule
from gateway.policy.compile_refine import refine_rule
from gateway.policy.compile_stores import retrieval_rule
from gateway.policy.compiled import (
    Constraint,
    DraftRule,
    Invariant,
    Mode,
    Objectives,
    Route,
    TrustedProxy,
    objection,
)
from gateway.policy.document import Document
from gateway.policy.expressions import Compiler, Condition, ExpressionError
from gateway.policy.mistakes import Mistakes, suggestion
from gateway.policy.schema import ConstraintSpec, RequireSpec, RouteSpec
from gateway.policy.validate import Specs
from gateway.policy.yaml_file import Path


class RulesCompiler:
    """Compiles constraints and routes; `conditions` collects what they need evaluated."""

    def __init__(self, document: Document, places: Places, mistakes: Mistakes) -> None:
        self.conditions: list[Condition] = []
        self.compiler = Compiler()
        self._document = document
        self._places = places
        self._mistakes = mistakes
        self._positions: dict[str, int] = {}

    def constraints(self, specs: Specs) -> tuple[Constraint, ...]:
        """All constraints, in the order of the files."""
        self._refuse_repeated_names((path, spec.name) for path, spec in specs.constraints)
        found = (self._constraint(path, spec) for path, spec in specs.constraints)
        return tuple(constraint for constraint in found if constraint is not None)

    def _constraint(self, path: Path, spec: ConstraintSpec) -> Constraint | None:
        usable, when, constant = self._when(path, spec.when)
        if constant is False:
            self._add((*path, "when"), "this is never true, so the constraint never applies")
        if spec.require is None and not spec.deny:
            self._add(path, "`require` is missing in this entry of `constraints`; or `deny: true`", key=True)
            return None
        if not usable:
            return None
        require = spec.require
        regions = tuple(require.region or ()) if require else ()
        compliance = tuple(require.compliance or ()) if require else ()
        return Constraint(
            name=spec.name,
            source=spec.when or "",
            when=when,
            regions=regions,
            compliance=compliance,
            allowed=self._allowed(require) if require else 0,
            denies=spec.deny,
        )

    def invariants(self, specs: Specs) -> tuple[Invariant, ...]:
        """All invariants, in the order of the files."""
        self._refuse_repeated_names((path, spec.name) for path, spec in specs.invariants)
        found = []
        for path, spec in specs.invariants:
            condition = self._condition(path, spec.when) if spec.when is not None else None
            if condition is not None and condition.constant is False:
                self._add((*path, "when"), "this is never true, so the invariant says nothing")
            if condition is None and spec.when is not None:
                continue
            mark = self._document.mark((*path, "name"))
            found.append(
                Invariant(
                    name=spec.name,
                    source=spec.when or "",
                    condition=condition,
                    regions=tuple(spec.require.region or ()),
                    compliance=tuple(spec.require.compliance or ()),
                    place=Mistake(mark.file, mark.line, mark.column, ""),
                )
            )
        return tuple(found)

    def trusted_proxies(self, specs: Specs) -> tuple[TrustedProxy, ...]:
        """All peers whose headers are believed."""
        self._refuse_repeated_names((path, spec.name) for path, spec in specs.trusted_proxies)
        return tuple(
            TrustedProxy(networks=tuple(ip_network(name) for name in spec.networks), headers=tuple(spec.headers))
            for _, spec in specs.trusted_proxies
        )

    def _allowed(self, require: RequireSpec) -> int:
        regions, compliance = tuple(require.region or ()), tuple(require.compliance or ())
        mask = 0
        for position, deployment in enumerate(self._places.deployments.values()):
            if not objection(deployment.backend, regions, compliance):
                mask |= 1 << position
        return mask

    def routes(self, specs: Specs) -> tuple[Route, ...]:
        """All routes, in the order of the files."""
        self._refuse_repeated_names((path, spec.name) for path, spec in specs.routes)
        # Positions grow in the order of the routes, also where a constraint has the same condition.
        self._positions.clear()
        routes = []
        matches_all, seen = "", dict[str, str]()
        for path, spec in specs.routes:
            usable, when, constant = self._when(path, spec.when)
            if matches_all:
                self._add((*path, "name"), f"never reached: route `{matches_all}` above matches every request")
            elif constant is False:
                self._add((*path, "when"), "this is never true, so the route never matches")
            condition = " ".join((spec.when or "").split())
            if condition and condition in seen and not matches_all:
                self._add((*path, "when"), f"never reached: route `{seen[condition]}` above has the same condition")
            seen.setdefault(condition, spec.name)
            if usable and when is None:
                matches_all = matches_all or spec.name
            route = self._route(path, spec, when)
            if route is not None and usable:
                routes.append(route)
        if "routes" not in self._document.broken and not self._document.lists["routes"]:
            mark = self._document.mark(())
            self._mistakes.add(
                mark, "no routes: nothing would be served; add `routes: [{name: all, mode: cloud_only}]`"
            )
        return tuple(routes)

    def _route(self, path: Path, spec: RouteSpec, when: int | None) -> Route | None:
        if spec.mode == "edge_only" and not self._places.edge_named:
            self._add((*path, "mode"), "edge_only needs an edge: add a backend with `type: edge`")
        if spec.when_budget_is_spent == "edge_only" and not self._places.edge_named:
            self._add((*path, "when_budget_is_spent"), "edge_only needs an edge: add a backend with `type: edge`")
        if "models" in spec.model_fields_set and not spec.models:
            self._add((*path, "models"), "this names no model; leave `models` out for the one that the client names")
        primary = self._deployments((*path, "models"), spec.models)
        fallback = self._deployments((*path, "fallback"), spec.fallback)
        draft = self._draft(path, spec)
        optimize = spec.optimize
        return Route(
            name=spec.name,
            source=spec.when or "",
            when=when,
            mode=Mode(spec.mode),
            models=tuple(spec.models),
            primary=primary if spec.models else None,
            fallback=fallback,
            fallback_models=tuple(spec.fallback),
            optimizes=optimize is not None,
            pins=spec.pin == "conversation",
            prefix_affinity=spec.affinity == "prefix",
            # Without a word about it, the order in which models.yaml names them decides.
            weight_latency=optimize.latency if optimize else 1.0,
            weight_cost=optimize.cost if optimize else 0.0,
            objectives=Objectives(
                final_first_token_s=spec.objectives.final_first_token,
                cost_per_request_nanousd=spec.objectives.cost_per_request,
            ),
            draft=draft,
            hedge=hedge_rule(self._document, self._mistakes, path, spec, primary),
            cascade=cascade_rule(self._document, self._mistakes, self._places, path, spec),
            refine=refine_rule(self._document, self._mistakes, path, spec, primary if spec.models else None),
            cache=_cache_rule(spec),
            retrieval=retrieval_rule(self._document, self._mistakes, (*path, "retrieval"), spec.retrieval),
            when_spent=spec.when_budget_is_spent,
        )

    def _deployments(self, path: Path, names: list[str]) -> tuple[Deployment, ...]:
        """The deployments of these public models, each once, in order."""
        found: dict[str, Deployment] = {}
        for index, name in enumerate(names):
            if self._document.lacks("models", name):
                known = self._document.mappings["models"]
                self._add((*path, index), f"there is no model `{name}`{suggestion(name, known)}")
            if name in names[:index]:
                self._add((*path, index), f"`{name}` stands here twice")
            for deployment in self._places.models.get(name, ()):
                found.setdefault(deployment.id, deployment)
        return tuple(found.values())

    def _draft(self, path: Path, spec: RouteSpec) -> DraftRule:
        model, drafter = spec.draft.model, self._places.drafter
        if model is not None:
            drafter = next((found for found in self._places.models.get(model, ()) if found.can_draft), None)
            at = (*path, "draft", "model")
            if self._document.lacks("models", model):
                known = self._document.mappings["models"]
                self._add(at, f"there is no model `{model}`{suggestion(model, known)}")
            elif self._places.models.get(model) and drafter is None:
                message = (
                    f"`{model}` has no deployment on an edge, nor on a backend with `role: draft`: none of it drafts"
                )
                self._add(at, message)
        if spec.mode == "cascade" and drafter is not None and not drafter.is_edge:
            message = f"a cascade needs the edge: how sure {drafter.id} is of an answer is not known"
            self._add((*path, "mode"), message)
        if spec.mode not in {"draft_refine", "cascade"} and "draft" in spec.model_fields_set:
            self._add((*path, "draft"), f"mode {spec.mode} makes no draft; use draft_refine, or remove this", key=True)
        return DraftRule(
            deployment=drafter,
            max_tokens=spec.draft.max_tokens,
            default=DraftWish(spec.draft.default),
            allow=spec.draft.allow,
            compares_meaning=spec.draft.similarity == "meaning",
        )

    def _when(self, path: Path, source: str | None) -> tuple[bool, int | None, bool | None]:
        """Whether the condition can be used, its position (None: always true), and its value if it is constant."""
        if source is None:
            return True, None, None
        condition = self._condition(path, source)
        if condition is None:
            return False, None, None
        if condition.constant is True:
            return True, None, True
        position = self._positions.get(source)
        if position is None:
            position = self._positions[source] = len(self.conditions)
            self.conditions.append(condition)
        return True, position, condition.constant

    def _condition(self, path: Path, source: str) -> Condition | None:
        """None, with the mistakes noted, when it cannot be used."""
        try:
            return self.compiler.compile(source)
        except ExpressionError as problem:
            mark = self._document.mark((*path, "when"))
            for complaint in problem.complaints:
                self._mistakes.add(mark.inside(complaint.line, complaint.column), f"`when`: {complaint.message}")
            return None

    def _refuse_repeated_names(self, named: Iterable[tuple[Path, str]]) -> None:
        first: dict[str, Path] = {}
        for path, name in named:
            if name in first:
                mark = self._document.mark((*first[name], "name"))
                self._add((*path, "name"), f"`{name}` is named twice; first at {mark.file}:{mark.line}")
            first.setdefault(name, path)

    def _add(self, path: Path, message: str, *, key: bool = False) -> None:
        mark = self._document.name_mark(path) if key else self._document.mark(path)
        self._mistakes.add(mark, message)


def _cache_rule(spec: RouteSpec) -> CacheRule | None:
    if spec.cache is None:
        return None
    return CacheRule(
        ttl_s=spec.cache.ttl,
        stale_s=spec.cache.stale or 0.0,
        shared=spec.cache.shared,
        any_temperature=spec.cache.temperature == "any",
        charge=spec.cache.charge,
    )
