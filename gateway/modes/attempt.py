"""One try on one deployment, and the next one when it may be tried.

Nothing of a final is sent before its first content: events that carry none (a role, an id) wait, so that a deployment
which fails right after them can still be replaced without the client noticing. After the first content nobody retries.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence

import structlog

from gateway.backends.call import Call
from gateway.backends.health import Trial
from gateway.backends.observed import Begun
from gateway.errors import (
    BackendBroken,
    BackendCut,
    BackendError,
    BackendTimeout,
    EdgeError,
    FieldUnsupported,
    FirstdraftError,
)
from gateway.inference.deployment import Deployment
from gateway.inference.events import (
    Emit,
    Event,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Relayed,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    WholeAnswer,
)
from gateway.inference.usage import (
    Usage,
    believable,
    input_tokens_bound,
    input_tokens_charged,
    input_tokens_estimate,
    output_tokens_estimate,
)
from gateway.modes.candidates import Candidate, Candidates
from gateway.modes.copying import predicting
from gateway.modes.plan import Plan
from gateway.modes.retries import again_after_s
from gateway.telemetry.record import AttemptRecord
from gateway.wire.dropping import without


async def answer(plan: Plan, deployments: Sequence[Deployment], emit: Emit) -> None:
    """Let the first of `deployments` that can give the final give it.

    Raises:
        FirstdraftError: the last deployment's error, or that of one which failed after its first content. One that the
            budget has no room for is not asked.
    """
    candidates = Candidates(plan, deployments)
    while (candidate := await candidates.next()) is not None:
        if await try_on(plan, candidate, candidates, emit):
            return
    raise candidates.failure


async def try_on(plan: Plan, candidate: Candidate, candidates: Candidates, emit: Emit) -> bool:
    """Let one deployment give the final, in as many tries as it has; whether it did. `candidates` is told why not.

    Raises:
        FirstdraftError: it failed after its first content, or so that no other could do better.
    """
    deployment, trial = candidate
    tried = 0
    while True:
        attempt = Attempt(plan, deployment, trial, emit)
        try:
            await attempt.run()
        except FieldUnsupported as error:
            candidates.note(error)
            return False
        except (BackendError, EdgeError) as error:
            draw = random.random()  # noqa: S311 - how long a wait is, is no secret
            most, is_alone = deployment.backend.retries, candidates.none_left
            wait_s = again_after_s(error, tried, most=most, is_alone=is_alone, draw=draw)
            if wait_s is not None and asyncio.get_running_loop().time() + wait_s >= plan.deadline:
                wait_s = None
            if attempt.shown or (wait_s is None and not error.retryable):
                raise
            candidates.note(error)
        else:
            return True
        if wait_s is None:
            return False
        await asyncio.sleep(wait_s)
        if not await plan.extend_hold(deployment):
            return False
        trial = None if deployment.is_edge else plan.backends.health.begin_anyway(deployment)
        tried += 1


_MOST_BYTES_PER_TOKEN = 128
"""The longest tokens of the vocabularies we know are runs of 128 spaces: more a token is not what was asked for."""
_MOST_WAITING_BYTES = 1024 * 1024
"""Of events without content, before the first that has some."""
_WORKED_FOR_NOTHING = frozenset({"ok", "cancelled", "lost", BackendTimeout.code, BackendCut.code})
"""Outcomes after which a backend that was sent the request has read the prompt all the same, and bills it."""


class Attempt:
    """Passes one deployment's events on, counts them, and writes the attempt's record however it ends."""

    def __init__(
        self,
        plan: Plan,
        deployment: Deployment,
        trial: Trial | None,
        emit: Emit,
        record: AttemptRecord | None = None,
    ) -> None:
        self.shown = False
        """The client may have seen something of this final."""
        self._plan = plan
        self._deployment = deployment
        self._request = predicting(plan.request, deployment, plan.copy) if plan.copy else plan.request
        self._trial = trial
        self._emit = emit
        self._record = AttemptRecord(deployment=deployment.id) if record is None else record
        self._waiting: list[Event] = []
        self._waiting_bytes = 0
        self._content_bytes = 0
        granted = None if plan.max_tokens is None else plan.max_tokens * plan.request.n
        self._granted = math.inf if granted is None else granted
        self._usage_told = False
        self._first: float | None = None
        self._begun: Begun | None = None
        self._dropped: tuple[str, ...] = ()
        self._left = False
        """Nobody wants the events any more; they are counted."""
        self._asking: asyncio.Task[object] | None = None
        self._cancelled_before = 0

    async def run(self) -> None:
        plan, record = self._plan, self._record
        plan.record.attempts.append(record)
        request = self._request
        if self._deployment.drop:
            request, self._dropped = without(request, self._deployment.drop)
        call = Call(
            request=request,
            deployment=self._deployment,
            max_tokens=plan.max_tokens,
            tenant=plan.tenant,
            weight=plan.weight,
            record=record,
            deadline=plan.deadline,
            isolated=plan.isolated,
            background=plan.background,
            traceparent=plan.traceparent,
        )
        if plan.observed is not None:
            # The edge's first token is seen, whether or not the client's answer is streamed.
            stream, tokens = plan.request.stream or self._deployment.is_edge, input_tokens_estimate(plan.request)
            self._begun = plan.observed.begun(self._deployment.id, tokens, stream=stream)
        try:
            await self._answered(call)
            if not self._usage_told:
                await self._emit(UsageReported(self._estimate()))
            record.outcome = "ok"
            if self._trial is not None:
                self._trial.succeeded()
        except FirstdraftError as error:
            record.outcome = error.code or error.type
            record.status = error.status
            if isinstance(error, BackendError):
                record.detail = error.detail or None
            if self._trial is not None:
                self._trial.failed(error)
            raise
        except asyncio.CancelledError:
            record.outcome = "cancelled"
            raise
        finally:
            if self._trial is not None:
                self._trial.given_up()
            self._settle()
            self._observe()

    async def _answered(self, call: Call) -> None:
        backends, backend = self._plan.backends, self._deployment.backend
        answering = backends.client(backend).answer(call, self._pass_on)
        if backend.read_on_s:
            # The answer comes in a task of its own, which goes on for a moment when the one that asks is cancelled.
            self._asking = asyncio.current_task()
            self._cancelled_before = 0 if self._asking is None else self._asking.cancelling()
            await backends.leftovers.answered(answering, self._leave)
        else:
            await answering

    def _leave(self, task: asyncio.Task[None]) -> Callable[[], None] | None:
        """The client has left an answer that can be read on; None: the backend does not know of the request yet."""
        if self._record.connect_s is None:
            return None
        self._left = True
        self._plan.reading_on.append(task)
        timer = asyncio.get_running_loop().call_later(self._deployment.backend.read_on_s, task.cancel)

        def over() -> None:
            timer.cancel()
            self._settle()
            structlog.get_logger().info(
                "answer_read_on",
                request_id=self._plan.record.request_id,
                deployment=self._deployment.id,
                input_tokens=self._record.input_tokens,
                output_tokens=self._record.output_tokens,
                estimated=self._record.estimated,
            )

        return over

    def _is_unwanted(self) -> bool:
        """Whoever asks has just been cancelled, and has not noticed yet."""
        return self._asking is not None and self._asking.cancelling() > self._cancelled_before

    async def _pass_on(self, event: Event) -> None:
        match event:
            case Relayed():
                self._content_bytes += event.content_bytes
                if not self.shown and not event.content and event.finish_reason is None:
                    self._wait(event)
                    return
            case TextDelta() | ReasoningDelta() | RefusalDelta():
                self._content_bytes += len(event.text)
            case ToolCallDelta():
                self._content_bytes += len(event.name) + len(event.arguments)
            case UsageReported():
                self._usage_told = True
                self._record.usage = event.usage
            case WholeAnswer():
                self._usage_told = event.usage is not None
                self._record.usage = event.usage
                self._content_bytes += len(event.text)
            case _:
                pass
        if self._content_bytes > self._granted * _MOST_BYTES_PER_TOKEN + _MOST_BYTES_PER_TOKEN:
            name = self._deployment.id
            message = f"{name} sent far more than the {self._granted} tokens that it was asked for at most"
            raise BackendBroken(message, deployment=name)
        if self._left or self._is_unwanted():
            return
        if not self.shown:
            await self._begin(event)
        await self._emit(event)

    def _wait(self, event: Relayed) -> None:
        """Keep what says nothing yet: were it sent, no other deployment could answer any more."""
        self._waiting.append(event)
        self._waiting_bytes += len(event.data)
        if self._waiting_bytes > _MOST_WAITING_BYTES:
            name = self._deployment.id
            raise BackendBroken(f"{name} sent {self._waiting_bytes} bytes and no content", deployment=name)

    async def _begin(self, event: Event) -> None:
        """The first event that the client sees of the final."""
        self.shown = True
        if self._trial is not None:
            self._trial.answers()
        record = self._plan.record
        record.deployment, record.dropped = self._deployment.id, ", ".join(self._dropped)
        if not isinstance(event, Finished | UsageReported | WholeAnswer):
            self._first = self._plan.elapsed_s()
            record.final_ttft_s = self._first
        if not isinstance(event, Finished | UsageReported) and self._plan.observed and self._begun:
            self._plan.observed.first_token(self._begun)
        for waiting in self._waiting:
            await self._emit(waiting)
        self._waiting.clear()

    def _observe(self) -> None:
        """Tell that it is over, and of what ended well how fast it was."""
        observed, begun, first = self._plan.observed, self._begun, self._first
        if observed is None or begun is None:
            return
        tokens = self._record.output_tokens if self._record.outcome == "ok" else 0
        per_token_s = None
        if first is not None and tokens > 1:
            per_token_s = (self._plan.elapsed_s() - first) / (tokens - 1)
        observed.ended(begun, per_token_s=per_token_s, output_tokens=tokens or None)

    def _estimate(self) -> Usage:
        return Usage(
            input_tokens=input_tokens_charged(self._plan.request, self._deployment.image_tokens),
            output_tokens=int(min(self._granted, output_tokens_estimate(self._content_bytes))),
            estimated=True,
        )

    def _believable(self, usage: Usage) -> Usage:
        """What the deployment counted, as far as it can be true: nobody's budget is locked by what was never used.

        The prompt has no more tokens than were reserved for it, unless the deployment adds to it by itself, at most to
        the context that policy says it has. The answer has no more than were asked for, or than bytes came.
        """
        request, deployment = self._request, self._deployment
        bound = input_tokens_bound(request, deployment.image_tokens)
        output = max(self._granted + request.prediction_bytes * request.n, self._content_bytes)
        found = believable(usage, input_tokens=max(bound, deployment.context_tokens or 0), output_tokens=output)
        if found is not usage:
            structlog.get_logger().warning(
                "usage_not_believed",
                deployment=deployment.id,
                request_id=self._plan.record.request_id,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                booked_input_tokens=found.input_tokens,
                booked_output_tokens=found.output_tokens,
            )
        return found

    def _settle(self) -> None:
        """Write down what this attempt used: what the backend said, else an estimate of what it did, else nothing."""
        record, usage = self._record, self._record.usage
        if usage is None:
            sent = record.connect_s is not None
            if not self.shown and not (sent and record.outcome in _WORKED_FOR_NOTHING):
                return
            usage = self._estimate()
        usage = self._believable(usage)
        record.input_tokens = usage.input_tokens
        record.output_tokens = usage.output_tokens
        record.cached_input_tokens = usage.cached_input_tokens
        record.estimated = usage.estimated
        record.cost_nanousd = self._deployment.price.cost_nanousd(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_input_tokens=usage.cached_input_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            audio_input_tokens=usage.audio_input_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            audio_output_tokens=usage.audio_output_tokens,
            rejected_prediction_tokens=usage.rejected_prediction_tokens,
        )
        if self._first is not None and usage.output_tokens > 1:
            self._plan.record.tpot_s = (self._plan.elapsed_s() - self._first) / (usage.output_tokens - 1)
