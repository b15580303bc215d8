"""Whether a draft is made, and if not, why. The answer of the request is the same either way."""

from __future__ import annotations

from gateway.inference.deployment import Deployment
from gateway.inference.prediction import EdgeNow
from gateway.inference.request import DraftWish
from gateway.policy.compiled import DRAFTING, Mode, Route
from gateway.policy.facts import Facts
from gateway.routing.candidates import Filter
from gateway.routing.decision import NoDraft


def wish_of(route: Route, facts: Facts) -> DraftWish:
    """How the draft is to be shown: as the client said, else as the route does."""
    return route.draft.default if facts.draft is None else facts.draft


def useful_within_s(route: Route, final: Deployment) -> float:
    """Seconds after which a draft is of no use: the final's own first token is there, or was given up."""
    objective = route.objectives.final_first_token_s
    return final.backend.timeouts.first_token_s if objective is None else objective


def choose_draft(
    route: Route, mode: Mode, facts: Facts, passing: Filter, final: Deployment, *, wish: DraftWish, within_s: float
) -> tuple[Deployment | None, NoDraft]:
    """The deployment that drafts; or None, and the first reason that holds.

    In a cascade the draft is what may become the answer: it is made whether or not anybody wants to see it.
    """
    deployment = route.draft.deployment
    reason = _reason_against(route, mode, facts, wish)
    if reason:
        return None, reason
    if deployment is None:
        return None, "edge_not_ready"
    if deployment == final and not deployment.is_edge:
        return None, "mode"  # it gives the final itself
    if not passing.allows(deployment):
        return None, "constraint"
    now = facts.edge(deployment.id) if deployment.is_edge else _ELSEWHERE
    limits = [tokens for tokens in (now.context_tokens, deployment.context_tokens) if tokens]
    if limits and facts.prompt_tokens + route.draft.max_tokens > min(limits):
        return None, "too_long"
    if not now.ready or deployment.id in facts.unhealthy:
        return None, "edge_not_ready"
    if now.wait_s > within_s:
        return None, "queue"
    return deployment, ""


_ELSEWHERE = EdgeNow(ready=True)
"""Of an edge elsewhere nothing is known but what its attempts say: see `Facts.unhealthy`."""


def _reason_against(route: Route, mode: Mode, facts: Facts, wish: DraftWish) -> NoDraft:
    """The first reason in the request or the route, before it is asked how the edge is."""
    if mode not in DRAFTING:
        return "mode"
    if mode is Mode.DRAFT_REFINE and not _is_shown(wish, facts):
        return "not_asked"
    if not route.draft.allow:
        return "route"
    drafter = route.draft.deployment
    needs: tuple[tuple[bool, NoDraft], ...] = (
        (facts.tools, "tools"),
        (facts.json_output and not (drafter is not None and drafter.json_output), "json"),
        (facts.images, "images"),
        (facts.audio, "audio"),
        (facts.n > 1, "n"),
        (facts.logprobs, "logprobs"),
    )
    for needed, reason in needs:
        if needed:
            return reason
    return ""


def _is_shown(wish: DraftWish, facts: Facts) -> bool:
    """Reasoning is shown in chunks: a whole answer has no place for it."""
    return wish is DraftWish.FRAMES or (wish is DraftWish.REASONING and facts.stream)
