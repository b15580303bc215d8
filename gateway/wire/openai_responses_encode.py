"""What a client of the Responses API gets: streamed events with the draft beside them, or a whole response.

A stream is `response.created`, `response.in_progress`, item after item (added, its parts and deltas, done), and
`response.completed` or `response.incomplete` with all of it. A draft frame is one more `response.in_progress` with an
extra object, which SDKs pass over. Calls stay open until something else comes, because their pieces may interleave.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import FirstdraftError, InternalError
from gateway.inference.conversation import Reasoning, Refusal, Text, ToolCall, Turn
from gateway.inference.events import (
    Delta,
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
from gateway.wire.collected import Block, Collected
from gateway.wire.draft_frame import draft_fields, draft_frame
from gateway.wire.openai_chat_error import told
from gateway.wire.openai_responses_answer import (
    ResponseObject,
    call_item,
    items_of,
    message_item,
    part_of,
    reasoning_item,
)
from gateway.wire.openai_responses_request import is_kept

KEEPALIVE = b": keepalive\n\n"
_ENCODER = msgspec.json.Encoder()


class _Writer:
    """What a stream and a whole answer share: the deltas so far, and the response that they make."""

    def __init__(
        self, *, request: InferenceRequest, response_id: str, created: int, model: str, wish: DraftWish
    ) -> None:
        self.head = ResponseObject(request=request, response_id=response_id, created=created, model=model)
        self.head.kept = is_kept(request)
        self._sources = request.sources
        self._wish = wish
        self._collected = Collected()

    @property
    def turn(self) -> Turn:
        """The answer as a turn, for the response that goes on from it."""
        return Turn("assistant", tuple(self._collected.blocks))

    def response(self) -> dict[str, Any]:
        """The response, now that all of it is there."""
        finished = self._collected.finished
        if finished is None:
            raise InternalError("the answer ended without a finish reason")
        return self.head.finished(items_of(self._collected.blocks, self.head), finished, self._collected.usage)


class StreamEncoder(_Writer):
    """Writes one streamed answer."""

    def __init__(
        self, *, request: InferenceRequest, response_id: str, created: int, model: str, wish: DraftWish
    ) -> None:
        super().__init__(request=request, response_id=response_id, created=created, model=model, wish=wish)
        self._sequence = 0
        self._draft_seq = 0
        self._items = 0
        self._message: _OpenItem | None = None
        """The message or the thought that grows."""
        self._calls: dict[int, _OpenItem] = {}
        """The calls that grow, by their index."""

    def encode(self, event: Event) -> bytes:
        """The bytes for `event`; empty when this client is not to see it."""
        match event:
            case TextDelta() | ReasoningDelta() | RefusalDelta():
                return self._begin() + self._say(event)
            case ToolCallDelta():
                return self._begin() + self._call(event)
            case Finished():
                self._collected.add(event)
                return self._begin() + self._close_message() + self._close_calls()
            case UsageReported():
                self._collected.add(event)
                return b""
            case DraftText() | DraftCompleted() | DraftJudged():
                return self._draft(event)
            case Idle():
                return KEEPALIVE
            case Relayed() | WholeAnswer():
                raise InternalError("an answer of another schema was given for a streamed response")

    def end(self) -> bytes:
        """What ends an answer that is complete."""
        response = self.response()
        return self._event(f"response.{response['status']}", response=response)

    def error(self, error: FirstdraftError, request_id: str) -> bytes:
        """The last event of an answer that failed after its first byte; the connection is closed after it.

        What went wrong stands in it twice: at its top, as documented, and under `error`, where SDKs look.
        """
        known = told(error, request_id)
        flat = {name: known[name] for name in ("code", "message", "param")}
        return self._event("error", **flat, error=known)

    # --- items ------------------------------------------------------------------------------------------------

    def _begin(self) -> bytes:
        if self._sequence:
            return b""
        begun = self.head.begun([])
        return self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)

    def _say(self, event: TextDelta | ReasoningDelta | RefusalDelta) -> bytes:
        if isinstance(event, ReasoningDelta) and not event.text:
            return b""
        data = self._close_calls()
        kind = _KINDS[type(event)]
        item = self._message
        if item is None or item.is_thought != (kind is Reasoning):
            data += self._close_message()
            item = self._message = _OpenItem(self._items, is_thought=kind is Reasoning)
            self._items += 1
            item.item_id = self.head.item_id("rs" if item.is_thought else "msg", item.output_index)
            data += self._added(item, _empty_item(item))
        if item.kind is not kind:
            data += self._close_part(item)
            item.kind = kind
            part = part_of(kind(text="") if kind is Reasoning else kind(""))  # type: ignore[call-arg] # each its own way
            data += self._of_part(item, "response.content_part.added", part=part)
        self._collected.add(ReasoningDelta(event.text) if isinstance(event, ReasoningDelta) else event)
        item.texts.append(event.text)
        more: dict[str, object] = {"logprobs": []} if kind is Text else {}
        return data + self._of_part(item, f"response.{_NAMES[kind]}.delta", delta=event.text, **more)

    def _call(self, event: ToolCallDelta) -> bytes:
        data = self._close_message()
        self._collected.add(event)
        item = self._calls.get(event.index)
        if item is None:
            item = self._calls[event.index] = _OpenItem(self._items)
            self._items += 1
            item.item_id = self.head.item_id("fc", item.output_index)
            item.call = ToolCall(event.id, event.name, "")
            data += self._added(item, call_item(item.item_id, item.call, "in_progress"))
        if event.arguments:
            item.texts.append(event.arguments)
            kind = "response.function_call_arguments.delta"
            data += self._event(kind, item_id=item.item_id, output_index=item.output_index, delta=event.arguments)
        return data

    def _added(self, item: _OpenItem, empty: dict[str, Any]) -> bytes:
        return self._event("response.output_item.added", output_index=item.output_index, item=empty)

    def _close_message(self) -> bytes:
        item, self._message = self._message, None
        if item is None:
            return b""
        data = self._close_part(item)
        whole = reasoning_item(item.item_id, item.parts) if item.is_thought else message_item(item.item_id, "completed")
        if not item.is_thought:
            whole["content"] = item.parts
        return data + self._event("response.output_item.done", output_index=item.output_index, item=whole)

    def _close_part(self, item: _OpenItem) -> bytes:
        kind, text = item.kind, "".join(item.texts)
        if kind is None:
            return b""
        item.kind = None
        item.texts.clear()
        block = Reasoning(text=text) if kind is Reasoning else Refusal(text) if kind is Refusal else Text(text)
        part = part_of(block)
        said: dict[str, Any] = {"refusal": text} if kind is Refusal else {"text": text}
        if kind is Text:
            said["logprobs"] = []
        data = self._of_part(item, f"response.{_NAMES[kind]}.done", **said)
        data += self._of_part(item, "response.content_part.done", part=part)
        item.parts.append(part)
        return data

    def _close_calls(self) -> bytes:
        data = b""
        for item in self._calls.values():
            call = ToolCall(item.call.id, item.call.name, "".join(item.texts))
            where: dict[str, Any] = {"item_id": item.item_id, "output_index": item.output_index}
            done = "response.function_call_arguments.done"
            data += self._event(done, **where, name=call.name, arguments=call.arguments)
            whole = call_item(item.item_id, call, "completed")
            data += self._event("response.output_item.done", output_index=item.output_index, item=whole)
        self._calls.clear()
        return data

    # --- events -----------------------------------------------------------------------------------------------

    def _draft(self, event: DraftText | DraftCompleted | DraftJudged) -> bytes:
        if self._wish is DraftWish.FRAMES:
            frame = draft_frame(self._draft_seq, event, self._sources)
            self._draft_seq += 1
            # openai-node takes the response in this event for all that there is so far.
            so_far = self.head.begun(items_of(self._collected.blocks, self.head, "in_progress"))
            return self._begin() + self._event("response.in_progress", response=so_far, draft=frame)
        if self._wish is DraftWish.REASONING and isinstance(event, DraftText) and event.text:
            return self._begin() + self._say(ReasoningDelta(event.text))
        return b""

    def _of_part(self, item: _OpenItem, kind: str, **members: object) -> bytes:
        where: dict[str, Any] = {
            "item_id": item.item_id,
            "output_index": item.output_index,
            "content_index": len(item.parts),
        }
        return self._event(kind, **where, **members)

    def _event(self, kind: str, **members: object) -> bytes:
        value = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + _ENCODER.encode(value) + b"\n\n"


class AnswerEncoder(_Writer):
    """Collects the events of an answer that is not streamed, and writes it."""

    def __init__(
        self, *, request: InferenceRequest, response_id: str, created: int, model: str, wish: DraftWish
    ) -> None:
        super().__init__(request=request, response_id=response_id, created=created, model=model, wish=wish)
        self._draft: dict[str, Any] = {}

    def add(self, event: Event) -> None:
        """Take in the next event."""
        match event:
            case DraftCompleted() | DraftJudged():
                self._draft.update(draft_fields(event), text=event.text)
            case DraftText() | Idle():
                pass
            case Relayed() | WholeAnswer():
                raise InternalError("an answer of another schema was given for a response")
            case _:
                self._collected.add(event)

    def body(self) -> bytes:
        """The response's body, with the draft that the client asked for, and the sources of what it was told."""
        more: dict[str, Any] = {"sources": self._sources} if self._sources else {}
        if self._draft and self._wish is DraftWish.FRAMES:
            more["draft"] = self._draft
        return _ENCODER.encode(self.response() | more)


class _OpenItem:
    """An item of the output that is being streamed."""

    def __init__(self, output_index: int, *, is_thought: bool = False) -> None:
        self.output_index = output_index
        self.is_thought = is_thought
        self.item_id = ""
        self.kind: type[Text | Reasoning | Refusal] | None = None
        """Of the part that grows."""
        self.texts: list[str] = []
        self.parts: list[dict[str, Any]] = []
        self.call = ToolCall("", "", "")


_KINDS: dict[type[Delta], type[Text | Reasoning | Refusal]] = {
    TextDelta: Text,
    ReasoningDelta: Reasoning,
    RefusalDelta: Refusal,
}
_NAMES: dict[type[Block], str] = {Text: "output_text", Refusal: "refusal", Reasoning: "reasoning_text"}


def _empty_item(item: _OpenItem) -> dict[str, Any]:
    return reasoning_item(item.item_id, []) if item.is_thought else message_item(item.item_id, "in_progress")
