"""The final after or beside a draft: passed on, compared with the draft, and replaced by it where the route says so.

Used by `draft_refine`, where both run at once, and by `cascade`, where the draft is over when the final begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.errors import BackendError, EdgeError
from gateway.inference.deployment import Deployment
from gateway.inference.events import Emit, Event, Finished, Relayed, TextDelta, WholeAnswer
from gateway.modes import attempt, hedge
from gateway.modes.copying import with_copy
from gateway.modes.draft import Draft
from gateway.modes.plan import Plan


async def refine(plan: Plan, draft: Draft, drafting: asyncio.Task[None] | None, emit: Emit) -> None:
    """Answer from the plan's deployments but the drafter; `drafting` is the draft's task while it still runs.

    When all of those fail and the plan allows the drafter to answer, a whole draft is promoted; one that its own token
    limit cut is not an answer, so the edge is then asked again in full.
    """
    finals: Sequence[Deployment] = tuple(found for found in plan.deployments if found.id != draft.drafter.id)
    if draft.complete and draft.text:
        plan = await with_copy(plan, draft.text)
    final = _Final(draft, drafting, emit)
    try:
        await hedge.answer(plan, finals, final.pass_on)
    except (BackendError, EdgeError) as error:
        if final.begun or not error.retryable or draft.drafter not in plan.deployments:
            await draft.drop()
            raise
        error.__traceback__ = None  # its frames hold who holds the error
        if drafting is not None:
            await asyncio.wait((drafting,))
        if draft.is_an_answer:
            await draft.promote()
            return
        try:
            await attempt.answer(plan, (draft.drafter,), final.pass_on)
        except EdgeError:
            if final.begun:
                raise
            raise error from None  # why the larger model failed is what the client can do something about


class _Final:
    """Passes the final on, and tells the draft when it has been overtaken or must be judged."""

    def __init__(self, draft: Draft, drafting: asyncio.Task[None] | None, emit: Emit) -> None:
        self.begun = False
        self._draft = draft
        self._drafting = drafting
        self._emit = emit
        self._pieces: list[str] = []
        self._length = 0

    async def pass_on(self, event: Event) -> None:
        self.begun = True
        await self._judge_before(event)
        await self._draft.tell()
        await self._emit(event)

    async def _judge_before(self, event: Event) -> None:
        match event:
            case Relayed() | TextDelta():
                self._pieces.append(event.text)
                self._length += len(event.text)
                if isinstance(event, Relayed) and event.finish_reason is not None:
                    await self._judge()
                elif self._is_drafting and event.text and self._length >= len(self._draft.text):
                    self._stop_drafting()
                    await self._draft.drop()
            case WholeAnswer():
                self._pieces.append(event.text)
                await self._judge()
            case Finished():
                await self._judge()
            case _:
                pass

    @property
    def _is_drafting(self) -> bool:
        return self._drafting is not None and not self._drafting.done()

    def _stop_drafting(self) -> None:
        if self._drafting is not None:
            self._drafting.cancel()

    async def _judge(self) -> None:
        self._stop_drafting()
        await self._draft.judge("".join(self._pieces))
