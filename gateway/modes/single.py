"""`cloud_only` and `edge_only`: one deployment answers, the next one when it cannot."""

from __future__ import annotations

from gateway.inference.events import Emit
from gateway.modes import attempt
from gateway.modes.plan import Plan


async def run(plan: Plan, emit: Emit) -> None:
    """Answer from the plan's deployments, in their order."""
    await attempt.answer(plan, plan.deployments, emit)
