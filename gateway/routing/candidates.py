"""What is left of the deployments that could answer: first by the constraints, then by what the request needs."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.inference.deployment import Deployment
from gateway.policy.compiled import CompiledPolicy, Constraint
from gateway.policy.facts import Facts
from gateway.retrieval.rule import PassageStore
from gateway.routing.decision import Removal

ALL = -1
"""The mask that allows everything."""


class Filter:
    """The constraints that apply to one request, and what the request needs of a deployment.

    Everything that is ever picked for the request (first choice, fallback, draft, budget downgrade) passes through
    the same filter: nothing can widen again what a constraint narrowed.
    """

    __slots__ = ("_applied", "_facts", "_passing", "_policy", "allowed", "removed")

    def __init__(self, policy: CompiledPolicy, facts: Facts, applied: list[Constraint]) -> None:
        self._policy = policy
        self._facts = facts
        self._applied = applied
        self.removed: dict[str, Removal] = {}
        self.allowed = ALL
        """The bits of the deployments that all constraints let pass."""
        for constraint in applied:
            self.allowed &= constraint.allowed
        self._passing = self.allowed & ~_lacking(policy, facts)

    def keep(self, deployments: Iterable[Deployment]) -> list[Deployment]:
        """Those that pass, in order; the others are noted in `removed`."""
        positions, passing, limited = self._policy.positions, self._passing, self._policy.lacking.length
        kept = []
        for deployment in deployments:
            bit = 1 << positions[deployment.id]
            if passing & bit and not (limited & bit and _is_too_long(deployment, self._facts)):
                kept.append(deployment)
            else:
                self.removed[deployment.id] = self._removal(deployment)
        return kept

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

    def _removal(self, deployment: Deployment) -> Removal:
        if not self.allows(deployment):
            for constraint in self._applied:
                reason = constraint.objection(deployment)
                if reason:
                    return Removal(deployment.id, constraint.name, reason, is_constraint=True)
        return Removal(deployment.id, *_lack(deployment, self._facts))


def _lacking(policy: CompiledPolicy, facts: Facts) -> int:
    """The bits of the deployments that cannot do what the request needs, whatever its length."""
    lacking, mask = policy.lacking, 0
    if facts.tools:
        mask |= lacking.tools
    if facts.images:
        mask |= lacking.images
    if facts.json_output:
        mask |= lacking.json_output
    if facts.audio or facts.n > 1:
        mask |= lacking.plain_only
    return mask


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


def _is_too_long(deployment: Deployment, facts: Facts) -> bool:
    if deployment.is_edge:
        return is_too_long_for_edge(deployment, facts)
    context = deployment.context_tokens
    return context is not None and facts.prompt_tokens + (facts.max_tokens or 1) > context


def is_too_long_for_edge(edge: Deployment, facts: Facts) -> bool:
    """Its prompt leaves no room in the edge's context."""
    # What the edge runs with is known better than what policy says; it shortens its answer to what is left.
    known = [tokens for tokens in (edge.context_tokens, facts.edge_context_tokens) if tokens]
    return bool(known) and facts.prompt_tokens >= min(known)
