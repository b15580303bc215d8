"""What a chat backend answers, in no schema's words: for clients that speak another one.

`StreamDecoder` and `decode_answer` have judged the bytes already (complete, no error, readable); here they become
deltas. Only choice 0 is read: no other surface asks for more.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.inference.events import (
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
from gateway.wire.openai_chat_answer import Content, ToolCall

_REASONS = {"function_call": "tool_calls", "eos_token": "stop", "stop_sequence": "stop", "max_tokens": "length"}
"""Finish reasons that some servers give, and the usual word for each."""
_ENCODER = msgspec.json.Encoder()


class _Call(ToolCall, gc=False):
    index: int | None = None
    id: Any = None


class _Content(Content, gc=False):
    tool_calls: list[_Call] | None = None  # type: ignore[assignment] # the same calls, with more of each read


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Content | None = None
    message: _Content | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    """vLLM's: the stop text that ended the answer."""


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class CanonicalAnswer:
    """Turns one answer's events into deltas."""

    def __init__(self) -> None:
        self._finished: Finished | None = None
        self._calls: list[str] = []
        """Ids of the calls that have begun."""

    def events(self, event: Event) -> list[Event]:
        """The events in place of `event`. The finish waits for the end, so that nothing follows it but the usage."""
        match event:
            case Relayed():
                return self._deltas(event.data)
            case WholeAnswer():
                usage = [UsageReported(event.usage)] if event.usage is not None else []
                return [*self._choice(event.body, streamed=False), *self.end(), *usage]
            case UsageReported():
                return [*self.end(), UsageReported(event.usage)]
            case _:
                return [event]

    def end(self) -> list[Event]:
        """The finish, if it was not given yet."""
        finished, self._finished = self._finished, None
        return [finished] if finished is not None else []

    def _deltas(self, data: bytes) -> list[Event]:
        found: list[Event] = []
        for payload in data[len(b"data: ") : -2].split(b"\n\ndata: "):
            found += self._choice(payload, streamed=True)
        return found

    def _choice(self, payload: bytes, *, streamed: bool) -> list[Event]:
        choices = _CHUNK.decode(payload).choices or ()
        found: list[Event] = []
        for choice in choices:
            if choice.index != 0:
                continue
            content = choice.delta if streamed else choice.message
            if content is not None:
                found += self._content(content)
            if choice.finish_reason is not None:
                sequence = choice.stop_reason if isinstance(choice.stop_reason, str) else None
                reason = _REASONS.get(choice.finish_reason, choice.finish_reason)
                if reason == "stop" and self._calls:
                    reason = "tool_calls"  # llama-server and others say `stop` after a call that was forced
                self._finished = Finished(reason, sequence)
        return found

    def _content(self, content: _Content) -> list[Event]:
        found: list[Event] = []
        reasoning = content.reasoning_content or content.reasoning
        if isinstance(reasoning, str) and reasoning:
            found.append(ReasoningDelta(reasoning))
        if text := content.text():
            found.append(TextDelta(text))
        if isinstance(content.refusal, str) and content.refusal:
            found.append(RefusalDelta(content.refusal))
        for position, call in enumerate(content.tool_calls or ()):
            found.append(self._call(call, position))
        if content.function_call is not None:
            found.append(self._call(_Call(function=content.function_call), 0))
        return found

    def _call(self, call: _Call, position: int) -> ToolCallDelta:
        """A piece of a call. Servers leave out the index, or count all calls as 0 and tell them apart by id alone."""
        function = call.function
        name = function.name if function is not None and isinstance(function.name, str) else ""
        arguments = function.arguments if function is not None else None
        text = arguments if isinstance(arguments, str) else "" if arguments is None else _text(arguments)
        known = call.id if isinstance(call.id, str) else ""
        index = position if call.index is None else call.index
        if index < len(self._calls):
            if not known or known == self._calls[index]:
                return ToolCallDelta(index=index, arguments=text)
            index = self._calls.index(known) if known in self._calls else len(self._calls)
        if index < len(self._calls):
            return ToolCallDelta(index=index, arguments=text)
        index = len(self._calls)
        self._calls.append(known or f"call_{index}")
        return ToolCallDelta(index=index, id=self._calls[index], name=name, arguments=text)


def _text(value: object) -> str:
    return _ENCODER.encode(value).decode()
