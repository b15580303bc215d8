"""`draft_refine`: the edge drafts while the final is on its way.

The final is not delayed for the draft: the draft runs beside it and stops as soon as it has nothing left to give,
that is when the final has as much text as the draft, or is complete. Whatever ends the request ends both.

Only a route with `refine: {wait: …}` has the final wait so long for the whole draft, and only where a deployment could
use it: one that takes it as a prediction (`copying`), or that may let it stand when it has read it (`score`).
"""

from __future__ import annotations

import asyncio

import structlog

from gateway.errors import FirstdraftError
from gateway.inference.deployment import Deployment
from gateway.inference.events import Emit
from gateway.modes import score
from gateway.modes.draft import Draft
from gateway.modes.plan import Plan
from gateway.modes.refine import refine
from gateway.tasks import error_of


async def run(plan: Plan, drafter: Deployment, emit: Emit) -> None:
    """Draft on `drafter`, and answer from the plan's other deployments."""
    draft = Draft(plan, drafter, emit)
    # Not a task group: a fault of the draft's must never end the final, nor wrap its error in a group.
    drafting = asyncio.create_task(draft.run(), name="draft")
    try:
        if _is_of_use(plan):
            await asyncio.wait((drafting,), timeout=0.0 if plan.refine is None else plan.refine.wait_s)
        if await score.keeps(plan, draft):
            await draft.promote()
        else:
            await refine(plan, draft, drafting, emit)
    finally:
        await _stop(drafting)


def _is_of_use(plan: Plan) -> bool:
    """The final could do something with a whole draft, and the route gives it the time."""
    rule = plan.refine
    if rule is None or not rule.wait_s:
        return False
    scores = rule.quantile is not None and score.scorer_of(plan) is not None
    return scores or any(found.prediction for found in plan.deployments)


async def _stop(drafting: asyncio.Task[None]) -> None:
    drafting.cancel()
    await asyncio.wait((drafting,))
    fault = error_of(drafting)
    if fault is not None and not isinstance(fault, FirstdraftError):
        structlog.get_logger().error("draft_failed", exc_info=fault)
