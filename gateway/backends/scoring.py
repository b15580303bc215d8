"""The log-probabilities that a deployment gives to a text that it did not write: `wire.scoring`, sent and read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import msgspec

from gateway.backends.call import BackendClient, Call
from gateway.backends.dialect import Dialect
from gateway.backends.openai import OpenAIBackend
from gateway.errors import BackendBroken, BackendTimeout, FirstdraftError
from gateway.inference.deployment import Deployment, Scoring
from gateway.inference.events import Event, WholeAnswer
from gateway.inference.request import InferenceRequest
from gateway.inference.usage import Usage
from gateway.wire import scoring as wire


async def score(client: BackendClient, call: Call, text: str) -> tuple[float, ...]:
    """The natural log-probabilities of the tokens of `text` as the answer to the call's request.

    Raises:
        BackendError: there is no score; what it cost stands in the call's record as far as it is known.
    """
    scoring = call.deployment.scoring
    if scoring is None or not isinstance(client, OpenAIBackend):
        raise BackendBroken(f"{call.deployment.id} gives no scores", deployment=call.deployment.id)
    asking = _Asking(client, replace(call, request=msgspec.structs.replace(call.request, stream=False)))
    limit = asyncio.timeout(call.deployment.backend.timeouts.first_token_s)
    try:
        async with limit:
            if scoring.api == "vllm":
                return await asking.vllm(text)
            return await asking.sglang(text, scoring)
    except wire.Unreadable as error:
        message = f"{call.deployment.id} gave no score that can be read: {error}"
        raise BackendBroken(message, deployment=call.deployment.id) from None
    except TimeoutError:
        if not limit.expired():
            raise
        message = f"{call.deployment.id} gave no score in time"
        raise BackendTimeout(message, deployment=call.deployment.id) from None


class _Asking:
    """One score on its way."""

    def __init__(self, client: OpenAIBackend, call: Call) -> None:
        self._client = client
        self._call = call

    async def vllm(self, text: str) -> tuple[float, ...]:
        call = self._call
        body = wire.vllm_request(call.request, call.deployment, text)
        answer = await self._ask("/chat/completions", body, wire.vllm_usage)
        return wire.vllm_logprobs(answer, text)

    async def sglang(self, text: str, scoring: Scoring) -> tuple[float, ...]:
        call = self._call
        prompt = _render(scoring, call)
        body = wire.tokenize_request(call.deployment, prompt, text)
        before, tokens = wire.tokenized(await self._ask("/tokenize", body, _nothing))
        body = wire.sglang_request(before, tokens)
        answer = await self._ask("/generate", body, wire.sglang_usage, at_root=True)
        return wire.sglang_logprobs(answer, tokens)

    async def _ask(
        self, path: str, sent: bytes, usage: Callable[[bytes], Usage | None], *, at_root: bool = False
    ) -> bytes:
        def encode(
            request: InferenceRequest,  # noqa: ARG001 as all requests are encoded
            deployment: Deployment,  # noqa: ARG001 as all requests are encoded
            *,
            max_tokens: int | None,  # noqa: ARG001 as all requests are encoded
            ask_usage: bool,  # noqa: ARG001 as all requests are encoded
        ) -> bytes:
            return sent

        def decode(body: bytes, *, deployment: str) -> WholeAnswer:  # noqa: ARG001 as all answers are decoded
            return WholeAnswer(body=body, text="", finish_reason="stop", usage=usage(body))

        found = b""

        async def take(event: Event) -> None:
            nonlocal found
            if isinstance(event, WholeAnswer):
                found = event.body

        dialect = Dialect(path=path, at_root=at_root, encode=encode, decode=decode)
        await self._client.ask(self._call, dialect, take)
        return found


def _nothing(_: bytes) -> Usage | None:
    return None


def _render(scoring: Scoring, call: Call) -> str:
    """The prompt as the deployment's model has it.

    Raises:
        BackendBroken: its chat template refuses this conversation.
    """
    sandbox = import_module("jinja2.sandbox")  # takes long to load, and few policies have a template
    environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    messages: list[Mapping[str, Any]] = [
        {"role": message.role, "content": message.text} for message in call.request.messages
    ]
    try:
        rendered: str = environment.from_string(scoring.chat_template).render(
            messages=messages, add_generation_prompt=True, bos_token="", eos_token=""
        )
    except (import_module("jinja2").TemplateError, FirstdraftError, TypeError, ValueError) as error:
        message = f"the chat template of {call.deployment.id} cannot write this conversation: {error}"
        raise BackendBroken(message, deployment=call.deployment.id) from None
    return rendered


def _refuse(message: str) -> None:
    raise ValueError(message)
