"""`cascade`: the edge answers; a larger model is asked where that answer is not sure enough.

    the edge answers ──whole, and sure──▶ stands: it is the answer
          ├──whole, and its confidence is under the route's threshold──▶ unsure ───────┐
          ├──whole, and nobody knows what its confidence means──▶ uncalibrated ────────┤
          │     of these two what a larger model's score lets stand──▶ scored          │
          ├──cut by the draft's own limit──▶ cut ──────────────────────────────────────┼──▶ the larger model answers
          ├──not done in the route's time──▶ late ─────────────────────────────────────┤
          ├──fails, is overloaded, cannot serve it──▶ failed ──────────────────────────┤
          └──is not asked, as the decision says──▶ no_draft ───────────────────────────┘

What the edge writes is shown, if at all, in draft frames; as content it goes out when it stands, and not before. The
confidence is that of `confidence`: calibrated, or there is none. Without one nothing stands, unless the route says so,
or a larger model lets it (`score`).
The larger models are those that the constraints left, and the edge's answer is the answer in their place only because
the same constraints left the edge.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from gateway.inference.deployment import Deployment
from gateway.inference.events import Emit
from gateway.modes import score
from gateway.modes.draft import Draft
from gateway.modes.plan import Plan
from gateway.modes.refine import refine
from gateway.policy.compiled import CascadeRule

Outcome = Literal["stands", "scored", "unsure", "uncalibrated", "cut", "late", "failed", "no_draft"]
HEADER = "x-firstdraft-cascade"


async def run(plan: Plan, drafter: Deployment, rule: CascadeRule, emit: Emit) -> None:
    """Let the edge answer, and the plan's other deployments where that does not stand."""
    draft = Draft(plan, drafter, emit)
    try:
        is_late = not await _drafted(draft, plan, rule)
    except asyncio.CancelledError:
        draft.charge_as_far_as_it_came()
        raise
    outcome = "late" if is_late else _outcome(plan, draft, rule)
    if outcome in {"unsure", "uncalibrated"} and await score.keeps(plan, draft):
        outcome = "scored"
    tell(plan, outcome)
    if outcome in {"stands", "scored"}:
        await draft.promote()
    else:
        await refine(plan, draft, None, emit)


def tell(plan: Plan, outcome: Outcome) -> None:
    """Write down what came of the cascade, for the log and, as long as nothing was sent, for the client."""
    plan.record.cascade = plan.headers[HEADER] = outcome


async def _drafted(draft: Draft, plan: Plan, rule: CascadeRule) -> bool:
    """Have the edge answer; False when it took longer than the route gives it."""
    limit = None if rule.within_s is None else asyncio.timeout_at(plan.started + rule.within_s)
    if limit is None:
        await draft.run()
        return True
    try:
        async with limit:
            await draft.run()
    except TimeoutError:
        if not limit.expired():
            raise
        await draft.drop()
        return False
    return True


def _outcome(plan: Plan, draft: Draft, rule: CascadeRule) -> Outcome:
    if not draft.complete:
        return "failed"
    if not draft.is_an_answer:
        return "cut"
    threshold = rule.threshold
    if threshold is None and rule.target_error is not None:
        threshold = plan.backends.threshold(draft.drafter.backend, rule.target_error)
    if draft.confidence is None or threshold is None:
        return "stands" if rule.accepts_uncalibrated else "uncalibrated"
    return "stands" if draft.confidence >= threshold else "unsure"
