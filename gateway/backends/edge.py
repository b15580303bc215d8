"""The edge as a backend: the same interface, over the edge process's own client."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from gateway.backends.call import Call
from gateway.edge.client import EdgeClient, EdgeDone, EdgeRequest, EdgeToken
from gateway.errors import BackendTimeout
from gateway.inference.events import Emit, Finished, TextDelta, UsageReported
from gateway.inference.usage import Usage


class EdgeBackend:
    """Answers with the edge's model. The client belongs to whoever opened it and stays open."""

    def __init__(self, client: EdgeClient) -> None:
        self._client = client

    async def answer(self, call: Call, emit: Emit) -> None:
        """Emit `TextDelta`…, `Finished`, `UsageReported`. A cancellation reaches the edge at once.

        Raises:
            EdgeUnavailable, EdgeOverloaded, EdgeCrashed, EdgeUnsuitable: see `errors`.
            BackendTimeout: the request's deadline passed.
        """
        limit = call.deployment.max_output_tokens if call.max_tokens is None else call.max_tokens
        request = EdgeRequest(
            messages=call.request.messages, max_tokens=limit, sampling=call.request.sampling, tenant=call.tenant
        )
        deadline = asyncio.timeout_at(call.deadline)
        try:
            async with deadline:
                await self._generate(request, call, emit)
        except TimeoutError:
            if not deadline.expired():
                raise
            deployment = call.deployment.id
            message = f"{deployment} did not complete the answer in time"
            raise BackendTimeout(message, deployment=deployment) from None

    async def close(self) -> None:
        """Nothing of its own to close."""

    async def retire(self) -> None:
        """Nothing of its own to close."""

    async def _generate(self, request: EdgeRequest, call: Call, emit: Emit) -> None:
        record = call.record
        async with aclosing(self._client.generate(request)) as events:
            async for event in events:
                match event:
                    case EdgeToken():
                        record.logprobs.extend(event.logprobs)
                        if event.text:
                            await emit(TextDelta(event.text))
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
        record.input_tokens = usage.input_tokens
        record.output_tokens = usage.output_tokens
        record.cached_input_tokens = usage.cached_input_tokens
        await emit(Finished(done.finish_reason))
        await emit(UsageReported(usage))
