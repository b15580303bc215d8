"""A policy after compilation: everything that depends on policy alone is settled in here. All of it is immutable."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Literal

from gateway.budgets.limit import Limit, Rate
from gateway.cache.rule import CacheRule
from gateway.classification.classifier import Classifier, Found
from gateway.errors import Mistake
from gateway.inference.deployment import Backend, Deployment
from gateway.inference.prediction import Prediction
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.policy.conditions import Conditions
from gateway.policy.expressions import Condition
from gateway.policy.pools import Course
from gateway.policy.rule_index import RuleIndex
from gateway.retrieval.rule import PassageStore, RetrievalRule
from gateway.tenants.issuer import Issuer
from gateway.tenants.tenant import KeyOwner, Tenant


class Mode(StrEnum):
    """How a request is served."""

    EDGE_ONLY = "edge_only"
    CLOUD_ONLY = "cloud_only"
    CASCADE = "cascade"
    DRAFT_REFINE = "draft_refine"
    HEDGE = "hedge"


DRAFTING = frozenset({Mode.CASCADE, Mode.DRAFT_REFINE})
"""Modes in which the edge may be asked beside what gives the final."""

WhenSpent = Literal["reject", "edge_only", "cheapest"]
WhenStoreIsGone = Literal["closed", "open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A rule that narrows. `when` is the position of its condition, None when it always applies."""

    name: str
    source: str
    when: int | None
    regions: tuple[str, ...]
    """One of these must match; a pattern may end in `*`. Empty: any region."""
    compliance: tuple[frozenset[str], ...]
    """Of each of these one term must be there."""
    allowed: int
    """Bit i is set when the deployment at `CompiledPolicy.positions[id] == i` passes."""
    denies: bool = False
    """Nothing passes, as the policy says in so many words."""

    def objection(self, place: Deployment | PassageStore) -> str:
        """Why a deployment or a store of passages does not pass, empty when it does."""
        if self.denies:
            return "such requests are denied"
        return objection(place if isinstance(place, PassageStore) else place.backend, self.regions, self.compliance)


def objection(backend: Backend | PassageStore, regions: tuple[str, ...], compliance: tuple[frozenset[str], ...]) -> str:
    """Why a deployment on `backend` does not meet a requirement, empty when it does.

    A backend without a region is in none: it meets no requirement of a region, not even `*`.
    """
    if regions and not any(_in_region(backend.region, pattern) for pattern in regions):
        return f"region {backend.region or 'unknown'} is not {' or '.join(regions)}"
    for terms in compliance:
        if not terms & backend.compliance:
            return f"it does not have {' or '.join(sorted(terms))}"
    return ""


def _in_region(region: str, pattern: str) -> bool:
    if not region:
        return False
    return region.startswith(pattern[:-1]) if pattern.endswith("*") else region == pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Invariant:
    """What has to hold of all requests: where `condition` is true, whatever can be reached meets the requirement.

    Fallback, draft and downgrade included; without a condition, everywhere. `routing.prove` shows that it does.
    """

    name: str
    source: str
    condition: Condition | None
    regions: tuple[str, ...]
    compliance: tuple[frozenset[str], ...]
    place: Mistake
    """Where it stands; the message is empty."""

    def objection(self, deployment: Deployment) -> str:
        """Why `deployment` must not be reached, empty when it may be."""
        return objection(deployment.backend, self.regions, self.compliance)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedProxy:
    """Peers whose word in these headers is believed."""

    networks: tuple[IPv4Network | IPv6Network, ...]
    headers: tuple[str, ...]
    """In lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """Bit masks of the deployments that cannot do something."""

    tools: int
    images: int
    json_output: int
    plain_only: int
    """Neither audio nor several answers: the edge."""
    contexts: tuple[int, ...]
    """Of those that are not the edge's, the shortest first: a request's length is known by how many it passes."""
    too_short: tuple[int, ...]
    """For each number of contexts that a request passes, the deployments that have these."""


def lacking(deployments: Iterable[Deployment]) -> Lacking:
    """The masks of `deployments`, their bits in the order in which they come."""
    bits = [(1 << position, deployment) for position, deployment in enumerate(deployments)]
    limited = [(bit, d.context_tokens) for bit, d in bits if d.context_tokens is not None and not d.is_edge]
    contexts = sorted({tokens for _, tokens in limited})
    return Lacking(
        tools=sum(bit for bit, deployment in bits if not deployment.tools),
        images=sum(bit for bit, deployment in bits if not deployment.images),
        json_output=sum(bit for bit, deployment in bits if not deployment.json_output),
        plain_only=sum(bit for bit, deployment in bits if deployment.is_edge),
        contexts=tuple(contexts),
        too_short=tuple(sum(bit for bit, tokens in limited if tokens < most) for most in (*contexts, math.inf)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """Limits that ranking tries to keep."""

    final_first_token_s: float | None = None
    cost_per_request_nanousd: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftRule:
    """How a route treats drafts. `deployment` is on an edge, here or elsewhere; None when the policy has none."""

    deployment: Deployment | None
    max_tokens: int
    default: DraftWish
    allow: bool
    compares_meaning: bool = False
    """Draft and final are compared by what they mean as well, where the extra `embeddings` is installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeRule:
    """When the edge's answer stands. Either `threshold` or `target_error` is set."""

    threshold: float | None
    """The least confidence, 0..1."""
    target_error: float | None
    """The largest share of answers that stand and are not good, 0..1: the calibration says which threshold that is."""
    within_s: float | None
    """So long after the request's arrival the edge has to be done; None: as long as it takes."""
    accepts_uncalibrated: bool
    """An answer of a model that was never calibrated stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeRule:
    """When a second deployment is asked beside the first."""

    after_s: float | None
    """When the first is later than this; None: than it usually is."""
    share: float
    """What is usual: the quantile (0..1) of the times that it took so far."""
    extra: float
    """The share of requests (0..1) for which a second one may be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineRule:
    """How a draft is used before a larger model writes an answer of its own."""

    wait_s: float
    """How long the final waits for the whole draft, where it could use it; 0 in a cascade, where it is there."""
    quantile: float | None
    """Of the log-probabilities that a larger model gives the draft's tokens, 0..1; None: it is not asked for them."""
    least: float
    """The draft is kept when that quantile is at least this; natural logarithm, at most 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A rule that decides how. `when` is the position of its condition, None when it matches always."""

    name: str
    source: str
    when: int | None
    mode: Mode
    models: tuple[str, ...]
    primary: tuple[Deployment, ...] | None
    """The deployments of `models`; None: those of the model that the client named."""
    fallback: tuple[Deployment, ...]
    fallback_models: tuple[str, ...]
    optimizes: bool
    """The route says `optimize`: predicted times count."""
    pins: bool
    """A conversation stays where it began, as long as that is well."""
    prefix_affinity: bool
    weight_latency: float
    weight_cost: float
    objectives: Objectives
    draft: DraftRule
    hedge: HedgeRule | None = None
    """Always set where the mode is hedge."""
    cascade: CascadeRule | None = None
    """Set exactly where the mode is cascade."""
    refine: RefineRule | None = None
    cache: CacheRule | None
    retrieval: RetrievalRule | None
    when_spent: WhenSpent


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPolicy:
    """A tenant, its keys (name and SHA-256 in hex) and what it may spend."""

    tenant: Tenant
    keys: tuple[tuple[str, str], ...] = ()
    limits: tuple[Limit, ...] = ()
    rate: Rate | None = None
    when_store_is_gone: WhenStoreIsGone = "closed"
    keyless: bool = False
    weight: float = 1.0
    """Its part of a busy backend, as against others'."""
    share_prefixes: bool = False
    """What the edge has read for others may serve this tenant, and the other way round."""
    classifier: Classifier | None = field(default=None, compare=False, repr=False)
    """What is looked for in the text of its requests; None: nothing."""

    def found_in(self, request: InferenceRequest) -> Found:
        """What the classifier finds in all text that a backend would get with `request`."""
        return Found() if self.classifier is None else self.classifier.classify_request(request)


_MOST_REMEMBERED = 4_096
_LONGEST_HEADER = 1_000


class Memo:
    """What deciding has found out and need not find out again. It changes how long a decision takes, never which."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[Hashable, object] = {}

    def get(self, key: Hashable) -> object | None:
        """What was remembered, None if nothing."""
        return self._found.get(key)

    def put(self, key: Hashable, found: object) -> None:
        """Remember; when it is too much, forget everything."""
        if len(self._found) >= _MOST_REMEMBERED:
            self.forget()
        self._found[key] = found

    def forget(self) -> None:
        """Begin anew."""
        self._found.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPolicy:
    """A policy that can be used. It never changes; a new one takes its place."""

    version: str
    """A short hash of the content."""
    backends: dict[str, Backend]
    forwarded: frozenset[str] = field(init=False, default=frozenset())
    """Headers of clients that some backend is sent."""
    deployments: dict[str, Deployment]
    """By id; the edge's is in here even when no model names it."""
    models: dict[str, tuple[Deployment, ...]]
    routes: tuple[Route, ...]
    constraints: tuple[Constraint, ...]
    conditions: Conditions
    invariants: tuple[Invariant, ...]
    trusted_proxies: tuple[TrustedProxy, ...] = ()
    tenants: dict[str, TenantPolicy]
    keys: dict[str, KeyOwner]
    """By the SHA-256 of an API key, in hex."""
    issuers: tuple[Issuer, ...] = ()
    """Whose signed tokens stand for tenants, beside keys."""
    keyless_tenant: str | None
    edge: Deployment | None
    """The first edge's deployment: what drafts, and what a spent budget is left with, unless the policy says more."""
    edges: tuple[Deployment, ...] = ()
    """Of all edges, in the policy's order."""
    stores: dict[str, PassageStore] = field(default_factory=dict)
    """Where passages come from."""
    positions: dict[str, int]
    """Deployment id -> its bit in `Constraint.allowed` and in `lacking`."""
    lacking: Lacking
    expected: Mapping[str, Prediction] = field(default_factory=dict)
    """By id of deployment: how fast policy expects it to be."""
    courses: Mapping[tuple[str, str], Course] = field(default_factory=dict)
    """By the names of route and model: what may be used, ready to be filtered."""
    places: dict[str, str] = field(default_factory=dict)
    """Deployment id -> it and where it is, as it stands in the keys of cached answers."""
    watched: frozenset[Path] = field(default=frozenset())
    """Files outside the policy's own that it was made from (keys named by `file:`)."""
    sources: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """The files that it was compiled from, by name, as they were then."""
    warnings: tuple[Mistake, ...] = ()
    """What is allowed and most likely not meant."""

    memo: Memo = field(default_factory=Memo, init=False, compare=False, repr=False)
    index: RuleIndex = field(init=False, compare=False, repr=False)
    """Constraints and routes by their conditions."""
    reads_language: bool = field(init=False, default=False)
    """Some condition asks for the prompt's language: else nobody looks for it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", RuleIndex(self.constraints, self.routes))
        forwarded = frozenset[str]().union(*(backend.forward_headers for backend in self.backends.values()))
        object.__setattr__(self, "forwarded", forwarded)
        object.__setattr__(self, "reads_language", self.conditions.read("request.language"))

    def believed(self, peer: str | None, values_of: Callable[[str], Sequence[str]]) -> dict[str, str]:
        """Of a request's headers those that its peer, an IP address, may set; names in lower case.

        One that is there twice is left out: it cannot be told which of the two is the proxy's.
        """
        if not self.trusted_proxies or peer is None:
            return {}
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return {}
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        named = (
            name
            for proxy in self.trusted_proxies
            if any((mapped or address) in network for network in proxy.networks)
            for name in proxy.headers
        )
        found = {name: values_of(name) for name in named}
        return {name: values[0][:_LONGEST_HEADER] for name, values in found.items() if len(values) == 1}

    def wanted(self, route: Route, named: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """What `route` prefers for a request that names the model of `named`, before anything is filtered."""
        wanted = named if route.primary is None else route.primary
        if route.mode is not Mode.EDGE_ONLY:
            return wanted
        edge = tuple(deployment for deployment in wanted if deployment.is_edge)
        return edge or (() if self.edge is None else (self.edge,))

    @property
    def edge_models(self) -> tuple[str, ...]:
        """What the edges load, each once, as policy wrote it: names, paths, `hf://…`."""
        return tuple(dict.fromkeys(edge.backend.edge_model for edge in self.edges))

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each: for logs, `policy check` and health."""
        return {
            name: len(getattr(self, name))
            for name in ("backends", "deployments", "models", "routes", "constraints", "tenants", "keys", "invariants")
        }
