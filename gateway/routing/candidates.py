"""What is left of the deployments that could answer: first by the constraints, then by what the request needs."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.inference.deployment import Deployment
from gateway.policy.compiled import CompiledPolicy, Constraint
from gateway.policy.facts import Facts
from gateway.routing.decision import Removal

ALL = -1
"""The mask that allows everything."""


class Filter:
    """The constraints that apply to one request, and what the request needs of a deployment.

    Everything that is ever picked for the request (first choice, fallback, draft, budget downgrade) passes through
    the same filter: nothing can widen again what a constraint narrowed.
    """

    __slots__ = ("_facts", "_needs_much", "_policy", "allowed", "applied", "removed")

    def __init__(self, policy: CompiledPolicy, facts: Facts, applied: list[Constraint]) -> None:
        self._policy = policy
        self._facts = facts
        self.applied = applied
        self.removed: dict[str, Removal] = {}
        self.allowed = ALL
        for constraint in applied:
            self.allowed &= constraint.allowed
        self._needs_much = (
            facts.tools or facts.images or facts.audio or facts.json_output or facts.logprobs or facts.n > 1
        )

    def keep(self, deployments: Iterable[Deployment]) -> list[Deployment]:
        """Those that pass, in order; the others are noted in `removed`."""
        kept = []
        for deployment in deployments:
            if deployment.id in self.removed:
                continue
            removal = self._removal(deployment)
            if removal is None:
                kept.append(deployment)
            else:
                self.removed[deployment.id] = removal
        return kept

    def allows(self, deployment: Deployment) -> bool:
        """Every constraint lets it pass; whether it can serve the request is another question."""
        return bool(self.allowed >> self._policy.positions[deployment.id] & 1)

    def _removal(self, deployment: Deployment) -> Removal | None:
        if not self.allows(deployment):
            for constraint in self.applied:
                reason = constraint.objection(deployment)
                if reason:
                    return Removal(deployment.id, constraint.name, reason, is_constraint=True)
        lack = _lack(deployment, self._facts) if self._needs_much else None
        lack = lack or _too_long(deployment, self._facts)
        return None if lack is None else Removal(deployment.id, *lack)


def _lack(deployment: Deployment, facts: Facts) -> tuple[str, str] | None:
    """What the request needs and `deployment` cannot do: its short name, and a sentence."""
    if facts.tools and not deployment.tools:
        return "tools", "it cannot call tools"
    if facts.images and not deployment.images:
        return "images", "it cannot read images"
    if facts.json_output and not deployment.json_output:
        return "json", "it cannot promise JSON"
    if not deployment.is_edge:
        return None
    if facts.audio:
        return "audio", "the edge cannot hear audio"
    if facts.n > 1:
        return "n", "the edge gives one answer at a time"
    if facts.logprobs:
        return "logprobs", "the edge gives no logprobs"
    return None


def _too_long(deployment: Deployment, facts: Facts) -> tuple[str, str] | None:
    context = deployment.context_tokens
    if deployment.is_edge:
        # What the edge runs with is known better than what policy says; it shortens its answer to what is left.
        known = [tokens for tokens in (context, facts.edge_context_tokens) if tokens]
        context, answer = min(known, default=None), 1
    else:
        answer = facts.max_tokens or 1
    if context is None or facts.prompt_tokens + answer <= context:
        return None
    return "context", f"prompt and answer together are longer than its {context} tokens"
