"""What a client of the chat API gets: streamed chunks with the draft beside them, a whole answer, the list of models.

Frames are written for the SDKs as they are, not as they should be. So there is never an `event:` name, `id:` or
`retry:` line, an event without data, `choices: []` before the usage, `index: 1` of the gateway's own making, an extra
key inside `delta` (but `reasoning_content`, where it was asked for), or a top-level key named `event`, `error`,
`chunk`, `type` or `timings`. A draft frame is an ordinary chunk with an empty delta and one more top-level object.
`draft.text` is the next piece in a `partial` frame and empty in all others, so that a client may add up what it gets.

All chunks of one answer have one id. Whichever goes out first sets it: a backend's chunks after a draft frame get the
gateway's id, a frame after a backend's chunk takes that chunk's id. Without drafts the backend's bytes stay untouched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gateway.errors import FirstdraftError, InternalError
from gateway.inference.conversation import Reasoning, Refusal, Text
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
    TokenLogprob,
    ToolCallDelta,
    UsageReported,
    WholeAnswer,
)
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.inference.usage import Usage
from gateway.wire.collected import Collected
from gateway.wire.draft_frame import draft_fields, draft_frame
from gateway.wire.openai_chat_error import encode_error
from gateway.wire.openai_logprobs import chat_logprobs
from gateway.wire.sse import frame

KEEPALIVE = b": keepalive\n\n"
DONE = b"data: [DONE]\n\n"
_ENCODER = msgspec.json.Encoder()
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Identified(msgspec.Struct):
    id: str = ""


_IDENTIFIED = msgspec.json.Decoder(_Identified)


class StreamEncoder:
    """Writes one streamed answer."""

    kind = "chat.completion.chunk"

    def __init__(
        self, *, request: InferenceRequest, response_id: str, created: int, model: str, wish: DraftWish
    ) -> None:
        self._include_usage = request.include_usage
        self._sources = request.sources
        self._response_id = response_id
        self._created = created
        self._model = model
        self._wish = wish
        self._seq = 0
        self._id_shown = False
        """A chunk of the gateway's own making has gone out."""
        self._first_relayed: bytes | None = None
        """The backend's first chunks, if they went out before any of the gateway's."""
        self._role_sent = False

    def encode(self, event: Event) -> bytes:
        """The bytes for `event`; empty when this client is not to see it."""
        match event:
            case Relayed():
                self._role_sent = True
                if self._id_shown:
                    return self._with_own_id(event.data)
                if self._first_relayed is None:
                    self._first_relayed = event.data
                return event.data
            case TextDelta() | ReasoningDelta() | RefusalDelta() | ToolCallDelta():
                return self._delta(event)
            case Finished():
                return self._chunk({}, finish_reason=event.reason)
            case UsageReported():
                return self._usage(event)
            case DraftText() | DraftCompleted() | DraftJudged():
                return self._draft(event)
            case Idle():
                return KEEPALIVE
            case WholeAnswer():
                raise InternalError("a whole answer was given for a streamed request")

    def end(self) -> bytes:
        """What ends an answer that is complete."""
        return DONE

    def error(self, error: FirstdraftError, request_id: str) -> bytes:
        """The last event of an answer that failed after its first byte; the connection is closed after it."""
        body = encode_error(error, request_id)
        return frame(body if b"\n" not in body and b"\r" not in body else msgspec.json.format(body, indent=-1))

    # --- the final --------------------------------------------------------------------------------------------

    def _delta(self, event: Delta) -> bytes:
        delta: dict[str, Any] = {} if self._role_sent else {"role": "assistant"}
        self._role_sent = True
        match event:
            case TextDelta():
                delta["content"] = event.text
                if event.logprobs:
                    return self._chunk(delta, told=event.logprobs)
            case ReasoningDelta():
                delta["reasoning_content"] = event.text
            case RefusalDelta():
                delta["refusal"] = event.text
            case ToolCallDelta():
                begins = {"id": event.id, "type": "function"} if event.id else {}
                function = ({"name": event.name} if event.id else {}) | {"arguments": event.arguments}
                delta["tool_calls"] = [{"index": event.index, **begins, "function": function}]
        return self._chunk(delta)

    def _usage(self, event: UsageReported) -> bytes:
        if not self._include_usage:
            return b""
        if event.data:
            return self._with_own_id(event.data) if self._id_shown else event.data
        return frame(_ENCODER.encode({**self._head(), "choices": [], "usage": encode_usage(event.usage)}))

    def _with_own_id(self, data: bytes) -> bytes:
        own = msgspec.Raw(_ENCODER.encode(self._response_id))
        events = []
        for payload in data.removesuffix(b"\n\n").split(b"\n\n"):
            # An id stands first, as SDKs expect it, also where the backend wrote none.
            fields = {"id": own} | _RAW_FIELDS.decode(payload.removeprefix(b"data:")) | {"id": own}
            events.append(frame(_ENCODER.encode(fields)))
        return b"".join(events)

    # --- the draft --------------------------------------------------------------------------------------------

    def _draft(self, event: DraftText | DraftCompleted | DraftJudged) -> bytes:
        if self._wish is DraftWish.FRAMES:
            self._seq += 1
            return self._chunk({}, draft=draft_frame(self._seq - 1, event, self._sources))
        if self._wish is DraftWish.REASONING and isinstance(event, DraftText) and event.text:
            return self._chunk({"reasoning_content": event.text})
        return b""

    # --- chunks -----------------------------------------------------------------------------------------------

    def _chunk(
        self,
        delta: dict[str, Any],
        *,
        finish_reason: str | None = None,
        draft: dict[str, Any] | None = None,
        told: Sequence[TokenLogprob] = (),
    ) -> bytes:
        chunk = {**self._head(), "choices": [self._choice(delta, finish_reason, told)]}
        if draft is not None:
            chunk["draft"] = draft
        return frame(_ENCODER.encode(chunk))

    def _choice(self, delta: dict[str, Any], finish_reason: str | None, told: Sequence[TokenLogprob]) -> dict[str, Any]:
        logprobs = {"logprobs": chat_logprobs(told)} if told else {}
        return {"index": 0, "delta": delta, **logprobs, "finish_reason": finish_reason}

    def _head(self) -> dict[str, Any]:
        if not self._id_shown:
            self._id_shown = True
            if self._first_relayed is not None:
                self._response_id = _id_of(self._first_relayed) or self._response_id
        return {
            "id": self._response_id,
            "object": self.kind,
            "created": self._created,
            "model": self._model,
        }


class AnswerEncoder:
    """Collects the events of an answer that is not streamed, and writes it."""

    kind = "chat.completion"

    def __init__(
        self, *, request: InferenceRequest, response_id: str, created: int, model: str, wish: DraftWish
    ) -> None:
        self._request = request
        self._response_id = response_id
        self._created = created
        self._model = model
        self._wish = wish
        self._collected = Collected()
        self._whole: WholeAnswer | None = None
        self._draft: dict[str, Any] = {}

    def add(self, event: Event) -> None:
        """Take in the next event."""
        match event:
            case WholeAnswer():
                self._whole = event
            case TextDelta() | ReasoningDelta() | RefusalDelta() | ToolCallDelta() | Finished() | UsageReported():
                self._collected.add(event)
            case DraftCompleted() | DraftJudged():
                self._draft.update(draft_fields(event), text=event.text)
            case DraftText() | Idle():
                pass
            case Relayed():
                raise InternalError("stream events were given for a request that is not streamed")

    def body(self) -> bytes:
        """The response's body. A backend's own passes as it came, but for a draft that was asked for, and sources."""
        more: dict[str, Any] = {}
        if self._draft and self._wish is DraftWish.FRAMES:
            more["draft"] = self._draft
        if self._request.sources:
            more["sources"] = self._request.sources
        if self._whole is None:
            return _ENCODER.encode(self._own_answer() | more)
        if not more:
            return self._whole.body
        fields = _RAW_FIELDS.decode(self._whole.body)
        fields |= {name: msgspec.Raw(_ENCODER.encode(value)) for name, value in more.items()}
        return _ENCODER.encode(fields)

    def _own_answer(self) -> dict[str, Any]:
        collected = self._collected
        if collected.finished is None:
            raise InternalError("the answer ended without a finish reason")
        answer: dict[str, Any] = {
            "id": self._response_id,
            "object": self.kind,
            "created": self._created,
            "model": self._model,
            "choices": [self._choice(collected, collected.finished.reason)],
        }
        if collected.usage is not None:
            answer["usage"] = encode_usage(collected.usage)
        return answer

    def _choice(self, collected: Collected, finish_reason: str) -> dict[str, Any]:
        calls = collected.calls
        text, refusal = collected.text(Text), collected.text(Refusal)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if not text and (calls or refusal) else text,
            "refusal": refusal or None,
        }
        if reasoning := collected.text(Reasoning):
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in calls
            ]
        logprobs = chat_logprobs(collected.logprobs)
        return {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}


def encode_models(names: Iterable[str], created: int) -> bytes:
    """The list of the models that a client may name; `created` in Unix seconds."""
    return _ENCODER.encode({"object": "list", "data": [_model(name, created) for name in names]})


def encode_model(name: str, created: int) -> bytes:
    """One model that a client may name; `created` in Unix seconds."""
    return _ENCODER.encode(_model(name, created))


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "firstdraft"}


def encode_usage(usage: Usage) -> dict[str, Any]:
    """Usage as OpenAI writes it."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _id_of(data: bytes) -> str:
    """The id in the first event of `data`; empty when there is none."""
    try:
        return _IDENTIFIED.decode(data[len(b"data: ") :].partition(b"\n")[0]).id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
