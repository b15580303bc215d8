"""What a client of the Messages API gets: streamed events with the draft beside them, or a whole message.

A stream is `message_start`, then block after block (`content_block_start`, deltas, `content_block_stop`), one
`message_delta` with stop reason and usage, and `message_stop`. A draft frame is a `ping` with one more object, which
SDKs pass over wherever it comes. Tokens are known at the end only: `message_start` says 0, `message_delta` says them.

Thinking is shown to clients that asked for it; others read `content[0].text`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import FirstdraftError, InternalError
from gateway.inference.conversation import Reasoning, Refusal, Text, ToolCall
from gateway.inference.events import (
    DraftCompleted,
    DraftJudged,
    DraftText,
    Event,
    Finished,
    Idle,
    ReasoningDelta,
    RefusalDelta,
    Relayed,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    WholeAnswer,
)
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.inference.usage import Usage
from gateway.wire.anthropic_messages_error import encode_error
from gateway.wire.collected import Block, Collected
from gateway.wire.draft_frame import draft_fields, draft_frame
from gateway.wire.fields import RAW_FIELDS

KEEPALIVE = b'event: ping\ndata: {"type":"ping"}\n\n'
_ENCODER = msgspec.json.Encoder()
_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


class StreamEncoder:
    """Writes one streamed answer."""

    def __init__(
        self, *, request: InferenceRequest, response_id: str, created: int, model: str, wish: DraftWish
    ) -> None:
        self._shows_reasoning = request.shows_reasoning
        self._sources = request.sources
        self._head = _Head(response_id, model)
        self._created = created
        self._wish = wish
        self._seq = 0
        self._begun = False
        self._blocks = 0
        self._open: str | int | None = None
        """The block that grows now: its kind, or the index of its call."""
        self._calls: dict[int, int] = {}
        """Call -> its block."""
        self._finished: Finished | None = None
        self._usage = Usage()

    def encode(self, event: Event) -> bytes:
        """The bytes for `event`; empty when this client is not to see it."""
        match event:
            case Relayed():
                return event.data
            case TextDelta() | RefusalDelta():
                return self._begin() + self._grow("text", {"type": "text_delta", "text": event.text})
            case ReasoningDelta():
                return self._reasoning(event) if self._shows_reasoning else b""
            case ToolCallDelta():
                return self._begin() + self._call(event)
            case Finished():
                self._finished = event
                return self._begin() + self._stop()
            case UsageReported():
                self._usage = event.usage
                return b""
            case DraftText() | DraftCompleted() | DraftJudged():
                return self._draft(event)
            case Idle():
                return KEEPALIVE
            case WholeAnswer():
                raise InternalError("a whole answer was given for a streamed request")

    def end(self) -> bytes:
        """What ends an answer that is complete; nothing where a backend's own events said it."""
        if self._finished is None:
            return b""
        delta = {"stop_reason": _stop_reason(self._finished), "stop_sequence": self._finished.stop_sequence}
        last = {"type": "message_delta", "delta": delta, "usage": _usage(self._usage)}
        return _event(last) + _event({"type": "message_stop"})

    def error(self, error: FirstdraftError, request_id: str) -> bytes:
        """The last event of an answer that failed after its first byte; the connection is closed after it."""
        return b"event: error\ndata: " + msgspec.json.format(encode_error(error, request_id), indent=-1) + b"\n\n"

    # --- blocks -----------------------------------------------------------------------------------------------

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _event({"type": "message_start", "message": self._head.message([], None, Usage())})

    def _start(self, block: dict[str, Any], kind: str | int) -> bytes:
        data = self._stop()
        self._open = kind
        self._blocks += 1
        return data + _event({"type": "content_block_start", "index": self._blocks - 1, "content_block": block})

    def _stop(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _event({"type": "content_block_stop", "index": self._blocks - 1})

    def _grow(self, kind: str, delta: dict[str, Any]) -> bytes:
        data = b""
        if self._open != kind:
            empty = {"thinking": "", "signature": ""} if kind == "thinking" else {"text": ""}
            data = self._start({"type": kind, **empty}, kind)
        return data + self._delta(self._blocks - 1, delta)

    def _delta(self, index: int, delta: dict[str, Any]) -> bytes:
        return _event({"type": "content_block_delta", "index": index, "delta": delta})

    def _reasoning(self, event: ReasoningDelta) -> bytes:
        data = self._begin()
        if event.text or not event.signature:
            data += self._grow("thinking", {"type": "thinking_delta", "thinking": event.text})
        if event.signature:
            data += self._grow("thinking", {"type": "signature_delta", "signature": event.signature}) + self._stop()
        return data

    def _call(self, event: ToolCallDelta) -> bytes:
        data = b""
        if event.index not in self._calls:
            block = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
            data = self._start(block, event.index)
            self._calls[event.index] = self._blocks - 1
        if event.arguments:
            piece = {"type": "input_json_delta", "partial_json": event.arguments}
            data += self._delta(self._calls[event.index], piece)
        return data

    # --- the draft --------------------------------------------------------------------------------------------

    def _draft(self, event: DraftText | DraftCompleted | DraftJudged) -> bytes:
        if self._wish is DraftWish.FRAMES:
            self._seq += 1
            return _event({"type": "ping", "draft": draft_frame(self._seq - 1, event, self._sources)})
        if self._wish is DraftWish.REASONING and isinstance(event, DraftText) and event.text:
            return self._reasoning(ReasoningDelta(event.text))
        return b""


class AnswerEncoder:
    """Collects the events of an answer that is not streamed, and writes it."""

    def __init__(
        self, *, request: InferenceRequest, response_id: str, created: int, model: str, wish: DraftWish
    ) -> None:
        self._shows_reasoning = request.shows_reasoning
        self._sources = request.sources
        self._head = _Head(response_id, model)
        self._created = created
        self._wish = wish
        self._collected = Collected()
        self._whole: WholeAnswer | None = None
        self._draft: dict[str, Any] = {}

    def add(self, event: Event) -> None:
        """Take in the next event."""
        match event:
            case WholeAnswer():
                self._whole = event
            case DraftCompleted() | DraftJudged():
                self._draft.update(draft_fields(event), text=event.text)
            case DraftText() | Idle():
                pass
            case Relayed():
                raise InternalError("stream events were given for a request that is not streamed")
            case _:
                self._collected.add(event)

    def body(self) -> bytes:
        """The response's body. A backend's own passes as it came, but for a draft that was asked for, and sources."""
        more: dict[str, Any] = {}
        if self._draft and self._wish is DraftWish.FRAMES:
            more["draft"] = self._draft
        if self._sources:
            more["sources"] = self._sources
        if self._whole is not None:
            if not more:
                return self._whole.body
            raw = {name: msgspec.Raw(_ENCODER.encode(value)) for name, value in more.items()}
            return _ENCODER.encode(RAW_FIELDS.decode(self._whole.body) | raw)
        collected = self._collected
        if collected.finished is None:
            raise InternalError("the answer ended without a finish reason")
        blocks = [
            _block(block) for block in collected.blocks if self._shows_reasoning or not isinstance(block, Reasoning)
        ]
        message = self._head.message(blocks, collected.finished, collected.usage or Usage())
        return _ENCODER.encode(message | more)


class _Head(msgspec.Struct, frozen=True):
    """What every message says of itself."""

    response_id: str
    model: str

    def message(self, blocks: list[dict[str, Any]], finished: Finished | None, usage: Usage) -> dict[str, Any]:
        return {
            "id": self.response_id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": blocks,
            "stop_reason": None if finished is None else _stop_reason(finished),
            "stop_sequence": None if finished is None else finished.stop_sequence,
            "usage": _usage(usage),
        }


def encode_count(tokens: int) -> bytes:
    """The answer of `count_tokens`."""
    return _ENCODER.encode({"input_tokens": tokens})


def _stop_reason(finished: Finished) -> str:
    if finished.stop_sequence is not None:
        return "stop_sequence"
    return _STOP_REASONS.get(finished.reason, finished.reason)


def _usage(usage: Usage) -> dict[str, Any]:
    """Usage as Anthropic writes it: what came from a cache is counted beside the other input, not in it."""
    counted: dict[str, Any] = {
        "input_tokens": usage.input_tokens - usage.cached_input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens:
        counted["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return counted


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Text() | Refusal():
            return {"type": "text", "text": block.text}
        case Reasoning():
            return {"type": "thinking", "thinking": block.text, "signature": block.signature}
        case ToolCall():
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": _input(block.arguments)}


def _input(arguments: str) -> object:
    """The arguments as an object. A model may write something that is none: the client gets it to see, as one text."""
    try:
        value = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return {"invalid_json": arguments}
    return value if isinstance(value, dict) else {"invalid_json": arguments}


def _event(value: dict[str, Any]) -> bytes:
    name: str = value["type"]
    return b"event: " + name.encode() + b"\ndata: " + _ENCODER.encode(value) + b"\n\n"
