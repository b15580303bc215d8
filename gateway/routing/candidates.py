"""What is left of the deployments that could answer: first by the constraints, then by what the request needs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import overload

from gateway.inference.deployment import Deployment
from gateway.policy.compiled import CompiledPolicy, Constraint
from gateway.policy.facts import Facts
from gateway.policy.pools import Pool
from gateway.retrieval.rule import PassageStore
from gateway.routing.decision import Removal

ALL = -1
"""The mask that allows everything."""


class Filter:
    """The constraints that apply to one request, and what the request needs of a deployment.

    Everything that is ever picked for the request (first choice, fallback, draft, budget downgrade) passes through
    the same filter: nothing can widen again what a constraint narrowed.
    """

    __slots__ = ("_applied", "_facts", "_policy", "allowed", "passing")

    def __init__(self, policy: CompiledPolicy, facts: Facts, applied: list[Constraint]) -> None:
        self._policy = policy
        self._facts = facts
        self._applied = applied
        self.allowed = ALL
        """The bits of the deployments that all constraints let pass."""
        for constraint in applied:
            self.allowed &= constraint.allowed
        self.passing = self.allowed & ~_lacking(policy, facts)
        """Of these, the bits of those that can serve the request."""

    def keeps(self, deployment: Deployment) -> bool:
        """It is allowed, and can serve the request."""
        return bool(self.passing >> self._policy.positions[deployment.id] & 1)

    def allows(self, deployment: Deployment) -> bool:
        """Every constraint lets it pass; whether it can serve the request is another question."""
        return bool(self.allowed >> self._policy.positions[deployment.id] & 1)

    def objection_to(self, store: PassageStore, tenant: str) -> str:
        """Why passages of this store are not for this tenant's request, empty when they are: constraints hold here."""
        if store.tenants and tenant not in store.tenants:
            return f"store `{store.name}` is not for tenant `{tenant}`"
        for constraint in self._applied:
            if reason := constraint.objection(store):
                return f"store `{store.name}` removed by constraint `{constraint.name}` ({reason})"
        return ""

    def removal(self, deployment: Deployment) -> Removal:
        """Why it does not pass."""
        if not self.allows(deployment):
            for constraint in self._applied:
                reason = constraint.objection(deployment)
                if reason:
                    return Removal(deployment.id, constraint.name, reason, is_constraint=True)
        return Removal(deployment.id, *_lack(deployment, self._facts))


def _lacking(policy: CompiledPolicy, facts: Facts) -> int:
    """The bits of the deployments that cannot do what the request needs."""
    lacking, mask = policy.lacking, 0
    if facts.tools:
        mask |= lacking.tools
    if facts.images:
        mask |= lacking.images
    if facts.json_output:
        mask |= lacking.json_output
    if facts.audio or facts.n > 1:
        mask |= lacking.plain_only
    if lacking.contexts:
        mask |= lacking.too_short[length_of(policy, facts)]
    edge = policy.edge
    if edge is not None and is_too_long_for_edge(edge, facts):
        mask |= 1 << policy.positions[edge.id]
    return mask


def length_of(policy: CompiledPolicy, facts: Facts) -> int:
    """How many of the known contexts the request does not fit in, the edge's aside."""
    return bisect_left(policy.lacking.contexts, facts.prompt_tokens + (facts.max_tokens or 1))


def _lack(deployment: Deployment, facts: Facts) -> tuple[str, str]:
    """What the request needs and `deployment` cannot do: its short name, and a sentence."""
    if facts.tools and not deployment.tools:
        return "tools", "it cannot call tools"
    if facts.images and not deployment.images:
        return "images", "it cannot read images"
    if facts.json_output and not deployment.json_output:
        return "json", "it cannot promise JSON"
    if deployment.is_edge and facts.audio:
        return "audio", "the edge cannot hear audio"
    if deployment.is_edge and facts.n > 1:
        return "n", "the edge gives one answer at a time"
    return "context", "prompt and answer together are longer than its context"


def is_too_long_for_edge(edge: Deployment, facts: Facts) -> bool:
    """Its prompt leaves no room in the edge's context."""
    # What the edge runs with is known better than what policy says; it shortens its answer to what is left.
    other = facts.edges.get(edge.id)
    running = facts.edge_context_tokens if other is None else other.context_tokens
    said = edge.context_tokens or running
    return bool(said) and facts.prompt_tokens >= min(said, running or said)


class Removed(Sequence[Removal]):
    """Who was removed of some lists, and why: worked out when somebody asks, for a request seldom does."""

    __slots__ = ("_candidates", "_filter", "_found")

    def __init__(self, passing: Filter, *candidates: Pool) -> None:
        self._filter = passing
        self._candidates = candidates
        self._found: tuple[Removal, ...] | None = None

    def _all(self) -> tuple[Removal, ...]:
        if self._found is None:
            gone = {at.id: at for pool in self._candidates for at in pool.all.deployments if not self._filter.keeps(at)}
            self._found = tuple(self._filter.removal(deployment) for deployment in gone.values())
        return self._found

    @overload
    def __getitem__(self, place: int) -> Removal: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Removal]: ...
    def __getitem__(self, place: int | slice) -> Removal | Sequence[Removal]:
        return self._all()[place]

    def __len__(self) -> int:
        return len(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())
