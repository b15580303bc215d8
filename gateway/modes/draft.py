"""The edge's quick answer on its way: its text so far, its state, its own attempt, and the verdict.

    partial ──the edge is done──▶ complete ──final ends──▶ confirmed | revised | replaced
       │                             └──it is the answer──▶ promoted
       └──final overtakes it, edge fails──▶ dropped

A draft never raises an error of the edge's: whoever asked for it looks at its state. One that is made elsewhere (a
backend with `role: draft`) is an attempt like any other: counted, charged, and known to the deployment's health.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from gateway.backends.call import Call
from gateway.errors import EdgeOverloaded, FirstdraftError
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
from gateway.inference.usage import Usage, input_tokens_charged
from gateway.modes.attempt import Attempt
from gateway.modes.changes import Change, changes
from gateway.modes.confidence import features
from gateway.modes.plan import Plan
from gateway.modes.verdict import judge
from gateway.telemetry.record import AttemptRecord

MEANING_WITHIN_S = 0.05
"""How much later the end of a final may come because its meaning is compared with the draft's."""


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
        self._record = AttemptRecord(deployment=drafter.id, role="draft", is_charged=not drafter.is_edge)
        self.confidence: float | None = None
        """0..1 once it is complete; None where the edge's model is not calibrated."""

    @property
    def tokens(self) -> int:
        """How many tokens it has, once it is complete."""
        return self._usage.output_tokens

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
        try:
            await (self._ask_edge(limit) if self.drafter.is_edge else self._ask_elsewhere(limit))
            record.outcome = "ok"
            await (self._complete() if self.text else self.drop())
        except EdgeOverloaded as error:
            record.outcome = error.code
            plan.record.no_draft = plan.headers["x-firstdraft-no-draft"] = "queue"
            await self.drop()
        except FirstdraftError as error:
            record.outcome = error.code or error.type
            await self.drop()
        except asyncio.CancelledError:
            record.outcome = "cancelled"
            raise

    async def _ask_elsewhere(self, limit: int) -> None:
        """As any attempt, which is counted and charged, but for what it would say of the request's answer."""
        plan = self._plan
        beside = plan.record.copy()
        beside.attempts = []
        trial = plan.backends.health.begin_anyway(self.drafter)
        drafting = replace(plan, max_tokens=limit, record=beside)
        await Attempt(drafting, self.drafter, trial, self._pass_on, self._record).run()

    async def _ask_edge(self, limit: int) -> None:
        plan, record = self._plan, self._record
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
        await plan.backends.client(self.drafter.backend).answer(call, self._pass_on)

    async def judge(self, final: str) -> None:
        """Give the verdict, now that the final is complete: once, and at once but for comparing meanings."""
        if self.judged:
            return
        if not self.complete:
            await self.drop()
            return
        state, similarity = judge(self.text, final)
        if self._plan.compares_meaning and state is not DraftState.CONFIRMED:
            meaning = await self._plan.backends.meaning.likeness(self.text, final, within_s=MEANING_WITHIN_S)
            state, similarity = judge(self.text, final, meaning)
        revised = changes(self.text, final) if state is DraftState.REVISED else None
        await self._close(state, similarity, revised)

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
        if self._record.is_charged:
            self._record.role = "final"
        else:
            self._charge(self._usage)
        await self._close(DraftState.PROMOTED, None)
        await self._emit(TextDelta(self.text))
        await self._emit(Finished(self._finish_reason))
        await self._emit(UsageReported(self._usage))

    def charge_as_far_as_it_came(self) -> None:
        """Whoever leaves while the edge gives what may be the answer has used what it gave."""
        made = len(self._record.logprobs)
        if made and self._record.role == "draft":
            request = self._plan.request
            self._charge(Usage(input_tokens=input_tokens_charged(request), output_tokens=made, estimated=True))

    def _charge(self, usage: Usage) -> None:
        """From now on it counts as an answer."""
        record = self._record
        record.role, record.is_charged = "final", True
        record.input_tokens, record.output_tokens = usage.input_tokens, usage.output_tokens
        record.cached_input_tokens, record.estimated = usage.cached_input_tokens, usage.estimated
        record.cost_nanousd = self.drafter.price.cost_nanousd(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_input_tokens=usage.cached_input_tokens,
        )

    async def _pass_on(self, event: Event) -> None:
        match event:
            case TextDelta():
                await self._grow(event.text)
            case Relayed():
                await self._grow(event.text)
                self._finish_reason = event.finish_reason or self._finish_reason
            case WholeAnswer():
                await self._grow(event.text)
                self._finish_reason = event.finish_reason
                if event.usage is not None:
                    self._take(event.usage)
            case Finished():
                self._finish_reason = event.reason
            case UsageReported():
                self._take(event.usage)
            case _:
                pass

    async def _grow(self, text: str) -> None:
        if self.judged or not text:
            return
        if self._plan.record.draft_ttft_s is None:
            self._plan.record.draft_ttft_s = self._plan.elapsed_s()
        self.text += text
        await self._emit(DraftText(text, self.drafter.model))

    def _take(self, usage: Usage) -> None:
        self._usage = usage
        self._record.input_tokens, self._record.output_tokens = usage.input_tokens, usage.output_tokens
        self._plan.record.draft_tokens = usage.output_tokens

    async def _complete(self) -> None:
        if self.judged:
            return
        self._state = DraftState.COMPLETE
        found = self._record.features = features(self._record.logprobs, self._record.margins, self.text)
        self.confidence = self._plan.record.confidence = self._plan.backends.estimate(self.drafter.backend, found)
        await self._emit(
            DraftCompleted(
                text=self.text,
                model=self.drafter.model,
                tokens=self._usage.output_tokens,
                ttft_s=self._plan.record.draft_ttft_s or self._plan.elapsed_s(),
                confidence=self.confidence,
            )
        )

    async def _close(
        self, state: DraftState, similarity: float | None, revised: tuple[Change, ...] | None = None
    ) -> None:
        self._state = state
        self._plan.record.draft = state.value
        self._plan.record.similarity = similarity
        verdict = DraftJudged(
            state=state, model=self.drafter.model, text=self.text, similarity=similarity, changes=revised
        )
        if self.text or state is not DraftState.DROPPED:
            await self._emit(verdict)
        else:
            self._untold = verdict
