"""What a backend answers to a chat request in one piece, and the parts that a stream shares with it.

Only what accounting needs is read. Everything is typed loosely on purpose: backends add fields and kinds of content,
and an answer that a client would have understood must not break here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.errors import BackendBroken, BackendCut
from gateway.inference.events import WholeAnswer
from gateway.inference.usage import Usage, counted
from gateway.wire.openai_chat_error import refused_in_answer

_ENCODER = msgspec.json.Encoder()
_OUTPUT_DETAILS = "completion_tokens_details"


class Function(msgspec.Struct, gc=False):
    """A called function. Arguments are a string; some servers send the object itself."""

    name: Any = None
    arguments: Any = None


class ToolCall(msgspec.Struct, gc=False):
    """A call, or a piece of one. A custom tool's has `custom` instead of `function`."""

    function: Function | None = None
    custom: Any = None


class Content(msgspec.Struct, gc=False):
    """A `message`, or the `delta` of one: everything in it that counts as content."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    audio: Any = None

    def text(self) -> str:
        """The visible text. Content may be a string, or parts of which some have text."""
        content = self.content
        if isinstance(content, str):
            return content
        if isinstance(content, list):
            parts = [part.get("text") for part in content if isinstance(part, dict)]
            return "".join(part for part in parts if isinstance(part, str))
        return ""

    def size(self) -> int:
        """Bytes of all content in it; 0 when it has none (a role, an empty string)."""
        total = _size(self.content) if self.content else 0
        if self.reasoning_content or self.reasoning:
            # Servers in transition send the same text under both names.
            total += max(_size(self.reasoning_content), _size(self.reasoning))
        if self.refusal:
            total += _size(self.refusal)
        if self.tool_calls:
            total += sum(_call_size(call) for call in self.tool_calls)
        if self.function_call:
            total += _size(self.function_call.name) + _size(self.function_call.arguments)
        if self.audio:
            total += _size(self.audio)
        return total


class AnswerChoice(msgspec.Struct):
    """One of the answers."""

    message: Content | None = None
    finish_reason: str | None = None
    index: int = 0


class Answer(msgspec.Struct):
    """A body, as far as it is read."""

    choices: list[AnswerChoice] | None = None
    usage: Any = None
    error: Any = None
    object: Any = None


_ANSWER = msgspec.json.Decoder(Answer)


def decode_answer(body: bytes, *, deployment: str, read: Callable[[bytes], Answer] = _ANSWER.decode) -> WholeAnswer:
    """The answer in a backend's body, which `read` reads.

    Raises:
        BackendRefused: the body is an error object.
        BackendBroken: it is empty, not JSON, or has no choices.
        BackendCut: a choice has no finish reason.
    """
    if not body.strip():
        raise BackendBroken(f"{deployment} answered with an empty body", deployment=deployment)
    try:
        answer = read(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"{deployment} answered something that is not a chat completion: {error}"
        raise BackendBroken(message, deployment=deployment) from None
    if answer.error or answer.object == "error":
        raise refused_in_answer(msgspec.json.decode(body), deployment=deployment)
    choices = answer.choices
    if not choices or any(choice.message is None for choice in choices):
        raise BackendBroken(f"{deployment} answered without a message", deployment=deployment)
    first = min(choices, key=lambda choice: choice.index)
    reasons = [choice.finish_reason for choice in choices]
    if None in reasons or first.finish_reason is None:
        raise BackendCut(f"{deployment} answered without a finish reason", deployment=deployment)
    return WholeAnswer(
        body=body,
        text="" if first.message is None else first.message.text(),
        finish_reason=first.finish_reason,
        usage=read_usage(answer.usage),
    )


def read_usage(value: object) -> Usage | None:
    """The usage in a backend's object; None when it has none that can be used."""
    if not isinstance(value, dict):
        return None
    prompt = counted(value.get("prompt_tokens"))
    completion = counted(value.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    # Some servers leave reasoning out of `completion_tokens`; it is in the total, and it is billed.
    output = max(completion, (counted(value.get("total_tokens")) or 0) - prompt)
    cached = _detail(value, "prompt_tokens_details", "cached_tokens") or counted(value.get("prompt_cache_hit_tokens"))
    reasoning = _detail(value, _OUTPUT_DETAILS, "reasoning_tokens")
    return Usage(
        input_tokens=prompt,
        output_tokens=output,
        cached_input_tokens=min(cached or 0, prompt),
        audio_input_tokens=min(_detail(value, "prompt_tokens_details", "audio_tokens") or 0, prompt),
        reasoning_tokens=min(reasoning or 0, output),
        audio_output_tokens=min(_detail(value, _OUTPUT_DETAILS, "audio_tokens") or 0, output),
        rejected_prediction_tokens=min(_detail(value, _OUTPUT_DETAILS, "rejected_prediction_tokens") or 0, output),
    )


def _detail(value: dict[str, Any], group: str, name: str) -> int | None:
    details = value.get(group)
    return counted(details.get(name)) if isinstance(details, dict) else None


def _call_size(call: ToolCall) -> int:
    if call.function is None:
        return _size(call.custom)
    return _size(call.function.name) + _size(call.function.arguments)


def _size(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    return len(_ENCODER.encode(value))
