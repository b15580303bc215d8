"""`draft_refine`: the edge drafts while the final is on its way.

    drafting ──complete──▶ complete ──final ends──▶ confirmed | revised | replaced
        │                     └──────final fails, edge is a fallback──▶ promoted
        └──final overtakes it, edge fails──▶ dropped

The final is never delayed for the draft: the draft runs beside it and stops as soon as it has nothing left to give,
that is when the final has as much text as the draft, or is complete. Whatever ends the request ends both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from gateway.backends.call import Call
from gateway.errors import BackendError, EdgeError, EdgeOverloaded, FirstdraftError
from gateway.inference.deployment import Deployment
from gateway.inference.events import (
    DraftCompleted,
    DraftJudged,
    DraftState,
    DraftText,
    Emit,
    Event,
    Finished,
    Relayed,
    TextDelta,
    UsageReported,
    WholeAnswer,
)
from gateway.inference.usage import Usage
from gateway.modes import attempt
from gateway.modes.confidence import features
from gateway.modes.plan import Plan
from gateway.modes.verdict import judge
from gateway.telemetry.record import AttemptRecord


async def run(plan: Plan, drafter: Deployment, emit: Emit) -> None:
    """Draft on `drafter`, and answer from the plan's other deployments.

    When all of those fail and the plan allows `drafter` to answer, a whole draft is promoted; one that its own
    token limit cut is not an answer, so the edge is then asked again in full.
    """
    draft = Draft(plan, drafter, emit)
    finals = tuple(deployment for deployment in plan.deployments if deployment.id != drafter.id)
    # Not a task group: a fault of the draft's must never end the final, nor wrap its error in a group.
    drafting = asyncio.create_task(draft.run(), name="draft")
    try:
        await _refine(plan, finals, draft, drafting, _Final(draft, drafting, emit))
    finally:
        await _stop(drafting)


async def _stop(drafting: asyncio.Task[None]) -> None:
    drafting.cancel()
    await asyncio.wait((drafting,))
    if not drafting.cancelled() and (fault := drafting.exception()) and not isinstance(fault, FirstdraftError):
        structlog.get_logger().error("draft_failed", exc_info=fault)


async def _refine(
    plan: Plan, finals: Sequence[Deployment], draft: Draft, drafting: asyncio.Task[None], final: _Final
) -> None:
    try:
        await attempt.answer(plan, finals, final.pass_on)
    except (BackendError, EdgeError) as error:
        if final.begun or not error.retryable or draft.drafter not in plan.deployments:
            await draft.drop()
            raise
        await asyncio.wait((drafting,))
        if draft.is_an_answer:
            await draft.promote()
        else:
            await attempt.answer(plan, (draft.drafter,), final.pass_on)


class Draft:
    """The edge's quick answer: its text so far, its state, and its own attempt."""

    def __init__(self, plan: Plan, drafter: Deployment, emit: Emit) -> None:
        self.text = ""
        self._plan = plan
        self.drafter = drafter
        self._emit = emit
        self._state = DraftState.PARTIAL
        self._finish_reason = ""
        self._untold: DraftJudged | None = None
        self._usage = Usage()
        self._record = AttemptRecord(deployment=drafter.id, role="draft")

    @property
    def judged(self) -> bool:
        """A verdict has been given."""
        return self._state not in (DraftState.PARTIAL, DraftState.COMPLETE)

    @property
    def complete(self) -> bool:
        """The edge has written all of it."""
        return self._state is DraftState.COMPLETE

    @property
    def is_an_answer(self) -> bool:
        """Whole, and ended by the model or by the client's own limit, not by the draft's."""
        if not self.complete or not self.text:
            return False
        limit = self._plan.max_tokens
        return self._finish_reason == "stop" or (limit is not None and limit <= self._plan.draft_max_tokens)

    async def run(self) -> None:
        """Draft until the edge is done, fails, or is cancelled. Never raises an error of the edge's."""
        plan, record = self._plan, self._record
        plan.record.attempts.append(record)
        limit = plan.draft_max_tokens if plan.max_tokens is None else min(plan.draft_max_tokens, plan.max_tokens)
        call = Call(
            request=plan.request,
            deployment=self.drafter,
            max_tokens=limit,
            tenant=plan.tenant,
            weight=plan.weight,
            record=record,
            deadline=plan.deadline,
            first_token_within_s=plan.draft_within_s,
            isolated=plan.isolated,
            background=plan.background,
        )
        try:
            await plan.backends.client(self.drafter.backend).answer(call, self._pass_on)
            record.outcome = "ok"
            await (self._complete() if self.text else self.drop())
        except EdgeOverloaded as error:
            record.outcome = error.code
            plan.record.no_draft = plan.headers["x-firstdraft-no-draft"] = "queue"
            await self.drop()
        except FirstdraftError as error:
            record.outcome = error.code or "error"
            await self.drop()
        except asyncio.CancelledError:
            record.outcome = "cancelled"
            raise

    async def judge(self, final: str) -> None:
        """Give the verdict, now that the final is complete: at once, and once."""
        if self.judged:
            return
        if not self.complete:
            await self.drop()
            return
        state, similarity = judge(self.text, final)
        await self._close(state, similarity)

    async def drop(self) -> None:
        """The draft came too late, or not at all."""
        if not self.judged:
            await self._close(DraftState.DROPPED, None)

    async def tell(self) -> None:
        """Tell a verdict that was kept back until the final begins.

        A verdict alone must not begin the response: a final that then fails could not have its own status any more.
        """
        verdict, self._untold = self._untold, None
        if verdict is not None:
            await self._emit(verdict)

    async def promote(self) -> None:
        """The draft is the answer."""
        plan = self._plan
        plan.record.deployment = self.drafter.id
        plan.record.final_ttft_s = plan.elapsed_s()
        self._record.role = "final"
        self._record.cost_nanousd = self.drafter.price.cost_nanousd(
            input_tokens=self._usage.input_tokens,
            output_tokens=self._usage.output_tokens,
            cached_input_tokens=self._usage.cached_input_tokens,
        )
        await self._close(DraftState.PROMOTED, None)
        await self._emit(TextDelta(self.text))
        await self._emit(Finished(self._finish_reason))
        await self._emit(UsageReported(self._usage))

    async def _pass_on(self, event: Event) -> None:
        match event:
            case TextDelta():
                if self.judged:
                    return
                if self._plan.record.draft_ttft_s is None:
                    self._plan.record.draft_ttft_s = self._plan.elapsed_s()
                self.text += event.text
                await self._emit(DraftText(event.text, self.drafter.model))
            case Finished():
                self._finish_reason = event.reason
            case UsageReported():
                self._usage = event.usage
                self._record.input_tokens = event.usage.input_tokens
                self._record.output_tokens = event.usage.output_tokens
                self._plan.record.draft_tokens = event.usage.output_tokens
            case _:
                pass

    async def _complete(self) -> None:
        if self.judged:
            return
        self._state = DraftState.COMPLETE
        found = self._record.features = features(self._record.logprobs, self.text)
        await self._emit(
            DraftCompleted(
                text=self.text,
                model=self.drafter.model,
                tokens=self._usage.output_tokens,
                ttft_s=self._plan.record.draft_ttft_s or self._plan.elapsed_s(),
                confidence=self._plan.backends.estimate(found),
            )
        )

    async def _close(self, state: DraftState, similarity: float | None) -> None:
        self._state = state
        self._plan.record.draft = state.value
        self._plan.record.similarity = similarity
        verdict = DraftJudged(state=state, model=self.drafter.model, text=self.text, similarity=similarity)
        if self.text or state is not DraftState.DROPPED:
            await self._emit(verdict)
        else:
            self._untold = verdict


class _Final:
    """Passes the final on, and tells the draft when it has been overtaken or must be judged."""

    def __init__(self, draft: Draft, drafting: asyncio.Task[None], emit: Emit) -> None:
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
                elif not self._drafting.done() and event.text and self._length >= len(self._draft.text):
                    self._drafting.cancel()
                    await self._draft.drop()
            case WholeAnswer():
                self._pieces.append(event.text)
                await self._judge()
            case Finished():
                await self._judge()
            case _:
                pass

    async def _judge(self) -> None:
        self._drafting.cancel()
        await self._draft.judge("".join(self._pieces))
