"""The edge as a backend: the same interface, over the edge process's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from gateway.backends.call import Call
from gateway.edge.client import EdgeClient, EdgeDone, EdgeRequest, EdgeToken
from gateway.errors import BackendTimeout, EdgeUnsuitable
from gateway.inference.events import Emit, Finished, TextDelta, UsageReported
from gateway.inference.usage import Usage
from gateway.wire.openai_chat_write import refuse_native_only


class EdgeBackend:
    """Answers with the edge's model. The client belongs to whoever opened it and stays open."""

    def __init__(self, client: EdgeClient) -> None:
        self._client = client

    async def answer(self, call: Call, emit: Emit) -> None:
        """Emit `TextDelta`…, `Finished`, `UsageReported`. A cancellation reaches the edge at once.

        Raises:
            EdgeUnavailable, EdgeOverloaded, EdgeCrashed, EdgeUnsuitable: see `errors`.
            BackendTimeout: the backend's limit for the first token or in total, or the request's deadline, passed.
            InvalidRequest: the edge cannot do what one of the request's fields asks for.
        """
        refuse_native_only(call.request, call.deployment, can="logprobs")
        call.record.at = "edge"
        limits = call.deployment.backend.timeouts
        began = asyncio.get_running_loop().time()
        end = min(call.deadline, began + limits.total_s)
        first_by = min(end, began + limits.first_token_s)
        request = _request(call, first_by - began)
        deadline = asyncio.timeout_at(first_by)
        try:
            async with deadline:
                await self._generate(request, call, emit, lambda: deadline.reschedule(end))
        except TimeoutError:
            if not deadline.expired():
                raise
            deployment = call.deployment.id
            late = "complete the answer" if deadline.when() == end else "begin its answer"
            message = f"{deployment} did not {late} in time"
            raise BackendTimeout(message, deployment=deployment) from None

    async def close(self) -> None:
        """Nothing of its own to close."""

    async def retire(self) -> None:
        """Nothing of its own to close."""

    async def _generate(self, request: EdgeRequest, call: Call, emit: Emit, on_first: Callable[[], None]) -> None:
        record, waiting = call.record, True
        async with aclosing(self._client.generate(request)) as events:
            async for event in events:
                match event:
                    case EdgeToken():
                        if waiting:
                            waiting = False
                            on_first()
                        record.logprobs.extend(event.logprobs)
                        record.margins.extend(event.margins)
                        if event.text or event.told:
                            await emit(TextDelta(event.text, event.told))
                    case EdgeDone():
                        await self._finish(event, call, emit)

    async def _finish(self, done: EdgeDone, call: Call, emit: Emit) -> None:
        record = call.record
        record.queue_s, record.connect_s = done.queue_s, 0.0
        record.prefill_s, record.decode_s = done.prefill_s, done.decode_s
        usage = Usage(
            input_tokens=done.prompt_tokens,
            output_tokens=done.completion_tokens,
            cached_input_tokens=done.cached_tokens,
        )
        record.usage = usage
        await emit(Finished(done.finish_reason))
        await emit(UsageReported(usage))


def _request(call: Call, first_token_s: float) -> EdgeRequest:
    """What the edge is asked. It refuses at once what it could not begin in time: another deployment may be in time."""
    if call.request.json_output and not call.request.json_schema:
        raise EdgeUnsuitable("the edge keeps to a JSON schema of `response_format`, and to no other shape")
    within_s = call.first_token_within_s
    return EdgeRequest(
        messages=call.request.messages,
        max_tokens=call.deployment.max_output_tokens if call.max_tokens is None else call.max_tokens,
        sampling=call.request.sampling,
        tenant=call.tenant,
        priority="background" if call.background else "interactive",
        isolated=call.isolated,
        json_schema=call.request.json_schema,
        ttft_within_s=first_token_s if within_s is None else min(within_s, first_token_s),
    )
