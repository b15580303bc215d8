"""From a plan to the mode that carries it out."""

from __future__ import annotations

from gateway.inference.events import Emit
from gateway.modes import draft_refine, single
from gateway.modes.plan import Plan
from gateway.policy.compiled import Mode


async def run(plan: Plan, emit: Emit) -> None:
    """Carry out the plan; its events go to `emit`, in the order that `inference.events` states.

    Raises:
        FirstdraftError: no deployment could give the final.
    """
    if plan.mode is Mode.DRAFT_REFINE and plan.draft is not None:
        await draft_refine.run(plan, plan.draft, emit)
    else:
        await single.run(plan, emit)
