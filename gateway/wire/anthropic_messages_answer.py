"""What a backend answers that speaks Messages: judged, counted, and in the client's schema or in none.

    opening ──message_start──▶ answering ──message_delta with a stop reason──▶ finished ──message_stop──▶ closed
       └────── error event, event that cannot be read: failed ──────┘            end before closed: cut

As in chat, one read becomes at most one `Relayed`, each event's data byte for byte.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import BackendBroken, BackendCut, BackendError
from gateway.inference.events import (
    Event,
    Finished,
    ReasoningDelta,
    Relayed,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    WholeAnswer,
)
from gateway.inference.usage import Usage, counted
from gateway.wire.openai_chat_error import has_error, refused_in_answer
from gateway.wire.sse import MAX_EVENT_BYTES, ServerEvent, SSEDecoder

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_ENCODER = msgspec.json.Encoder()


class _Counts(msgspec.Struct):
    """As they came: of whatever type."""

    input_tokens: Any = None
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None


_COUNTED = _Counts.__struct_fields__


class _Delta(msgspec.Struct):
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    id: str = ""
    name: str = ""
    input: Any = None


class _Message(msgspec.Struct):
    content: list[_Block] | None = None
    usage: _Counts | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    type: str = ""


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Counts | None = None


_EVENT = msgspec.json.Decoder(_Event)
_MESSAGE = msgspec.json.Decoder(_Message)


class MessagesDecoder:
    """Decodes one answer's stream."""

    def __init__(self, *, deployment: str, n: int = 1) -> None:
        del n  # this schema gives one answer
        self.ended = False
        """Nothing more is to be read: `message_stop` came, or the stream failed. `close` says which."""
        self.usage: Usage | None = None
        self._deployment = deployment
        self._sse = SSEDecoder()
        self._failure: BackendError | None = None
        self._counts = _Counts()
        self._stopped = False
        self._finished = False

    def feed(self, data: bytes) -> list[Event]:
        """The events of one read, of any size.

        Raises:
            BackendRefused, BackendBroken: the stream failed in an earlier read.
        """
        if self.ended:
            if self._failure is not None:
                raise self._failure
            return []
        events = self._relay(self._sse.feed(data))
        if self._sse.overflowed and not self.ended:
            self._fail(f"streamed an event larger than {MAX_EVENT_BYTES} bytes")
        return events

    def close(self) -> list[Event]:
        """The events that the end of the stream completes: last of all the usage.

        Raises:
            BackendRefused: the backend sent an error in the stream.
            BackendBroken: it sent something that cannot be read.
            BackendCut: it ended before the answer was complete.
        """
        events = [] if self.ended else self._relay(self._sse.close())
        self.ended = True
        if self._failure is not None:
            raise self._failure
        if not self._stopped or not self._finished:
            message = f"{self._deployment} ended its stream before the answer was complete"
            raise BackendCut(message, deployment=self._deployment)
        return events if self.usage is None else [*events, UsageReported(self.usage)]

    def _relay(self, found: list[ServerEvent]) -> list[Event]:
        frames: list[bytes] = []
        text, size, reason = "", 0, None
        for given in found:
            event = self._read(given)
            if event is None:
                break
            frames.append(_framed(given, event.type))
            delta = event.delta
            if delta is not None:
                text += delta.text
                size += len(delta.text) + len(delta.thinking) + len(delta.partial_json)
                if delta.stop_reason is not None:
                    reason = _REASONS.get(delta.stop_reason, delta.stop_reason)
            if event.content_block is not None and event.content_block.type == "tool_use":
                size += len(event.content_block.name)
            if self.ended:
                break
        if not frames:
            return []
        return [Relayed(data=b"".join(frames), text=text, content=size > 0, content_bytes=size, finish_reason=reason)]

    def _read(self, given: ServerEvent) -> _Event | None:
        """The event, noted; None for one that ends the stream and is not passed on."""
        try:
            event = _EVENT.decode(given.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._fail(f"streamed an event that is none of the Messages API: {error}")
            return None
        if event.type == "error" or given.name == b"error":
            value = msgspec.json.decode(given.data)
            self.ended = True
            self._failure = refused_in_answer(
                value if has_error(value) else {"error": value}, deployment=self._deployment
            )
            return None
        if event.message is not None and event.message.usage is not None:
            self._count(event.message.usage)
        if event.usage is not None:
            self._count(event.usage)
        if event.delta is not None and event.delta.stop_reason is not None:
            self._finished = True
        if event.type == "message_stop":
            self.ended = self._stopped = True
        return event

    def _count(self, counts: _Counts) -> None:
        """Counts are running totals; later ones replace those that they name."""
        known = {name: value for name in _Counts.__struct_fields__ if (value := getattr(counts, name)) is not None}
        self._counts = msgspec.structs.replace(self._counts, **known)
        self.usage = _usage(self._counts)

    def _fail(self, what: str) -> None:
        self.ended = True
        self._failure = BackendBroken(f"{self._deployment} {what}", deployment=self._deployment)


def decode_answer(body: bytes, *, deployment: str) -> WholeAnswer:
    """The message in a backend's body.

    Raises:
        BackendRefused: the body is an error object.
        BackendBroken: it is not JSON, or no message.
        BackendCut: it has no stop reason.
    """
    try:
        message = _MESSAGE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = f"{deployment} answered something that is not a message: {error}"
        raise BackendBroken(what, deployment=deployment) from None
    if message.type == "error":
        raise refused_in_answer(msgspec.json.decode(body), deployment=deployment)
    if message.content is None:
        raise BackendBroken(f"{deployment} answered without content", deployment=deployment)
    if message.stop_reason is None:
        raise BackendCut(f"{deployment} answered without a stop reason", deployment=deployment)
    return WholeAnswer(
        body=body,
        text="".join(block.text for block in message.content),
        finish_reason=_REASONS.get(message.stop_reason, message.stop_reason),
        usage=None if message.usage is None else _usage(message.usage),
    )


class CanonicalMessage:
    """Turns one answer's events into deltas. Blocks that no other schema has (hosted tools) are left out."""

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}
        """Block -> call."""
        self._finished: Finished | None = None

    def events(self, event: Event) -> list[Event]:
        """The events in place of `event`. The finish waits for the end, so that nothing follows it but the usage."""
        match event:
            case Relayed():
                payloads = (frame.partition(b"\ndata: ")[2] for frame in event.data[:-2].split(b"\n\n"))
                return [found for payload in payloads for found in self._deltas(_EVENT.decode(payload))]
            case WholeAnswer():
                message = _MESSAGE.decode(event.body)
                found = [
                    delta for index, block in enumerate(message.content or ()) for delta in self._block(block, index)
                ]
                self._finish(message.stop_reason, message.stop_sequence)
                usage = [UsageReported(event.usage)] if event.usage is not None else []
                return [*found, *self.end(), *usage]
            case UsageReported():
                return [*self.end(), UsageReported(event.usage)]
            case _:
                return [event]

    def end(self) -> list[Event]:
        """The finish, if it was not given yet."""
        finished, self._finished = self._finished, None
        return [finished] if finished is not None else []

    def _finish(self, reason: str | None, sequence: str | None) -> None:
        if reason is not None:
            self._finished = Finished(_REASONS.get(reason, reason), sequence)

    def _deltas(self, event: _Event) -> list[Event]:
        if event.content_block is not None:
            block = event.content_block
            # A stream's block begins empty: its input is an empty object, and comes in deltas.
            return self._block(msgspec.structs.replace(block, input=None), event.index)
        delta = event.delta
        if delta is None:
            return []
        self._finish(delta.stop_reason, delta.stop_sequence)
        found: list[Event] = []
        if delta.text:
            found.append(TextDelta(delta.text))
        if delta.thinking or delta.signature:
            found.append(ReasoningDelta(delta.thinking, delta.signature))
        if delta.partial_json and event.index in self._calls:
            found.append(ToolCallDelta(index=self._calls[event.index], arguments=delta.partial_json))
        return found

    def _block(self, block: _Block, index: int) -> list[Event]:
        match block.type:
            case "text":
                return [TextDelta(block.text)] if block.text else []
            case "thinking":
                thought = block.thinking or block.signature
                return [ReasoningDelta(block.thinking, block.signature)] if thought else []
            case "tool_use":
                call = self._calls[index] = len(self._calls)
                arguments = "" if block.input is None else _ENCODER.encode(block.input).decode()
                return [ToolCallDelta(index=call, id=block.id, name=block.name, arguments=arguments)]
            case _:
                return []


def _framed(event: ServerEvent, kind: str) -> bytes:
    """The event as it came, on one line."""
    data = event.data if b"\n" not in event.data else msgspec.json.format(event.data, indent=-1)
    return b"event: " + (event.name or kind.encode()) + b"\ndata: " + data + b"\n\n"


def _usage(counts: _Counts) -> Usage | None:
    """Anthropic counts what a cache read or wrote beside the other input; here input is all of it.

    None where one of them is no number of tokens: then none of them is believed.
    """
    found = {name: 0 if (value := getattr(counts, name)) is None else counted(value) for name in _COUNTED}
    plain, output, cached, written = found.values()
    if plain is None or output is None or cached is None or written is None:
        return None
    return Usage(
        input_tokens=plain + cached + written,
        output_tokens=output,
        cached_input_tokens=cached,
        cache_write_tokens=written,
    )
