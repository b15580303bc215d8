"""Answers a request for nobody who waits: through the same pipeline, into bytes that are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from gateway.conversations.going_on import keep, with_turns_before
from gateway.conversations.kept import Conversations
from gateway.errors import FirstdraftError, InternalError
from gateway.exchange import Exchange, feature_of
from gateway.inference.events import Emit, Event
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.jobs.asked import Asked
from gateway.jobs.endpoints import ENDPOINTS, RESPONSES
from gateway.modes.plan import Plan
from gateway.pipeline import Pipeline
from gateway.policy.compiled import CompiledPolicy
from gateway.telemetry.record import RequestRecord
from gateway.wire.openai_chat import encode_error


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the client would have got, had it waited. `events` are those of a streamed answer."""

    status: int
    body: bytes
    headers: dict[str, str] = {}
    events: list[Event] = []
    wish: DraftWish = DraftWish.OFF

    @property
    def failed(self) -> bool:
        return self.status >= 400


class Answering:
    """One for all jobs of a worker process.

    Args:
        policy: gives the policy that is in force.
        finish: takes the record of each request that was answered.
    """

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        policy: Callable[[], CompiledPolicy],
        conversations: Conversations,
        finish: Callable[[RequestRecord], None],
    ) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._conversations = conversations
        self.finish = finish

    def exchange(self, asked: Asked, request: InferenceRequest, *, record: RequestRecord) -> Exchange:
        """The exchange of a request under the policy in force.

        Raises:
            Unauthenticated: whoever asked may not any more.
            InvalidRequest: it names a feature that is no name.
        """
        policy, who = self._policy(), asked.who
        record.surface, record.model, record.stream, record.job = (
            request.surface,
            request.model,
            request.stream,
            asked.job,
        )
        record.tenant, record.key, record.path, record.method = who.tenant, who.key, asked.url, "POST"
        record.feature = feature_of(who.feature, request)
        return Exchange(
            request=request,
            identity=who.identity(policy),
            policy=policy,
            record=record,
            started=asyncio.get_running_loop().time(),
            feature=record.feature,
            labels=who.said_labels,
            believed=who.believed,
            cache_control=asked.cache_control,
            traceparent=asked.traceparent,
            background=asked.job == "batch",
        )

    async def answer(
        self,
        asked: Asked,
        request: InferenceRequest,
        *,
        record: RequestRecord,
        headers: dict[str, str] | None = None,
        emit: Emit | None = None,
        on_admitted: Callable[[Exchange, Plan], None] | None = None,
    ) -> Answer:
        """Have it answered; its record then says how, and is for the caller to `finish`.

        Raises:
            FirstdraftError: as the pipeline.
        """
        started = asyncio.get_running_loop().time()
        try:
            if asked.url == RESPONSES:
                request = await with_turns_before(self._conversations, asked.who.tenant, request)
            exchange = self.exchange(asked, request, record=record)
            exchange.on_admitted = on_admitted
            exchange.headers = exchange.headers if headers is None else headers
            answer = await self._run(asked, exchange, emit)
            record.status = answer.status
            return answer
        except FirstdraftError as error:
            record.status, record.error = error.status, error.code or error.type
            raise
        except asyncio.CancelledError:
            record.status, record.error = 499, "cancelled"
            raise
        except Exception as error:
            structlog.get_logger().exception("job_failed", request_id=record.request_id, path=asked.url)
            record.status, record.error = InternalError.status, InternalError.code or ""
            raise InternalError("internal error") from error
        finally:
            record.e2e_s = asyncio.get_running_loop().time() - started

    async def _run(self, asked: Asked, exchange: Exchange, emit: Emit | None) -> Answer:
        events: list[Event] = []

        async def look(event: Event) -> None:
            events.append(event)
            if emit is not None:
                await emit(event)

        # A response in the background may be streamed while it is made; its backend is asked the way its client asked.
        await self._pipeline.run(exchange, look)
        request = exchange.request
        writer = ENDPOINTS[asked.url].answer(
            request=request,
            response_id=asked.id,
            created=asked.created,
            model=request.model,
            wish=exchange.draft_wish,
        )
        for event in events:
            writer.add(event)
        if asked.url == RESPONSES:
            await keep(self._conversations, asked.who.tenant, request, writer)
        headers = dict(exchange.headers)
        if exchange.record.deployment:
            headers["x-firstdraft-deployment"] = exchange.record.deployment
        streamed = events if request.stream else []
        return Answer(status=200, body=writer.body(), headers=headers, events=streamed, wish=exchange.draft_wish)


def failed(error: FirstdraftError, request_id: str) -> Answer:
    """The answer that tells an error."""
    headers = {**error.headers, "x-should-retry": "false"}
    return Answer(status=error.status, body=encode_error(error, request_id), headers=headers)


def wanting_draft(request: InferenceRequest, asked: Asked) -> InferenceRequest:
    """The request with the draft as a header says, where its body does not."""
    if request.draft is not None or asked.draft is None:
        return request
    return msgspec.structs.replace(request, draft=asked.draft)


def new_record(answer_id: str, prefix: str) -> RequestRecord:
    """The record of a request with the id that its answer's id is made of."""
    return RequestRecord(request_id=f"req-{answer_id.removeprefix(prefix)}")
