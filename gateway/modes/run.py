"""From a plan to the mode that carries it out."""

from __future__ import annotations

from gateway.inference.events import Emit
from gateway.modes import cascade, draft_refine, hedge, single
from gateway.modes.plan import Plan
from gateway.policy.compiled import Mode


async def run(plan: Plan, emit: Emit) -> None:
    """Carry out the plan; its events go to `emit`, in the order that `inference.events` states.

    Raises:
        FirstdraftError: no deployment could give the final.
    """
    if plan.mode is Mode.DRAFT_REFINE and plan.draft is not None:
        await draft_refine.run(plan, plan.draft, emit)
    elif plan.mode is Mode.CASCADE and plan.draft is not None and plan.cascade is not None:
        await cascade.run(plan, plan.draft, plan.cascade, emit)
    elif plan.hedge is not None and plan.mode is not Mode.CASCADE:
        await hedge.answer(plan, plan.deployments, emit)
    else:
        if plan.mode is Mode.CASCADE:
            cascade.tell(plan, "no_draft")
        await single.run(plan, emit)
