"""`draft_refine`: the edge drafts while the final is on its way.

The final is never delayed for the draft: the draft runs beside it and stops as soon as it has nothing left to give,
that is when the final has as much text as the draft, or is complete. Whatever ends the request ends both.
"""

from __future__ import annotations

import asyncio

import structlog

from gateway.errors import FirstdraftError
from gateway.inference.deployment import Deployment
from gateway.inference.events import Emit
from gateway.modes.draft import Draft
from gateway.modes.plan import Plan
from gateway.modes.refine import refine


async def run(plan: Plan, drafter: Deployment, emit: Emit) -> None:
    """Draft on `drafter`, and answer from the plan's other deployments."""
    draft = Draft(plan, drafter, emit)
    # Not a task group: a fault of the draft's must never end the final, nor wrap its error in a group.
    drafting = asyncio.create_task(draft.run(), name="draft")
    try:
        await refine(plan, draft, drafting, emit)
    finally:
        await _stop(drafting)


async def _stop(drafting: asyncio.Task[None]) -> None:
    drafting.cancel()
    await asyncio.wait((drafting,))
    if not drafting.cancelled() and (fault := drafting.exception()) and not isinstance(fault, FirstdraftError):
        structlog.get_logger().error("draft_failed", exc_info=fault)
