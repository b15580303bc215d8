"""Anthropic's models where others host them, and roles that a server does not know: what differs in the bodies.

Vertex and Bedrock have the model in the URL and the version of the API in the body; Bedrock has `stream` in the URL,
too, and wraps the events of a stream into AWS's own framing.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from msgspec import Raw

from gateway.errors import BackendBroken, BackendCut, BackendError
from gateway.inference.events import Event
from gateway.inference.usage import Usage
from gateway.wire.anthropic_messages_answer import MessagesDecoder
from gateway.wire.aws_event_stream import EventStreamDecoder, EventStreamError, Message
from gateway.wire.openai_chat_error import refused_in_answer

BEDROCK_VERSION = "bedrock-2023-05-31"
VERTEX_VERSION = "vertex-2023-10-16"
_ENCODER = msgspec.json.Encoder()
_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_MESSAGES = msgspec.json.Decoder(list[dict[str, Raw]])
_DEVELOPER = b'"developer"'
_STATUS = {
    "internalServerException": 500,
    "modelStreamErrorException": 424,
    "modelTimeoutException": 408,
    "serviceUnavailableException": 503,
    "throttlingException": 429,
    "validationException": 400,
}


class _Chunk(msgspec.Struct):
    bytes: str


class _Typed(msgspec.Struct):
    type: str = ""


_CHUNK = msgspec.json.Decoder(_Chunk)
_TYPED = msgspec.json.Decoder(_Typed)


def hosted_body(body: bytes, *, version: str, stream_in_url: bool) -> bytes:
    """A Messages body as a host of Anthropic's models takes it."""
    fields = _FIELDS.decode(body)
    del fields["model"]
    if stream_in_url:
        fields.pop("stream", None)
    fields["anthropic_version"] = Raw(_ENCODER.encode(version))
    return _ENCODER.encode(fields)


def without_developer(body: bytes) -> bytes:
    """A chat body whose messages of the role `developer` are of the role `system`."""
    if _DEVELOPER not in body:
        return body
    fields = _FIELDS.decode(body)
    messages = _MESSAGES.decode(fields["messages"])
    for message in messages:
        if bytes(message.get("role", b"")) == _DEVELOPER:
            message["role"] = Raw(b'"system"')
    fields["messages"] = Raw(_ENCODER.encode(messages))
    return _ENCODER.encode(fields)


class BedrockDecoder:
    """Decodes one answer's stream: events of Messages, each in a `chunk` of AWS's framing."""

    def __init__(self, *, deployment: str, n: int = 1) -> None:
        self.ended = False
        self.usage: Usage | None = None
        self._deployment = deployment
        self._framing = EventStreamDecoder()
        self._messages = MessagesDecoder(deployment=deployment, n=n)
        self._failure: BackendError | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events of one read, of any size. Raises what an earlier read failed with."""
        if self.ended:
            if self._failure is not None:
                raise self._failure
            return []
        try:
            events = b"".join([self._event(message) for message in self._framing.feed(data)])
        except (EventStreamError, msgspec.DecodeError, UnicodeDecodeError, binascii.Error) as error:
            message = f"{self._deployment} streamed what is no event stream of Bedrock's: {error}"
            self._failure, events = BackendBroken(message, deployment=self._deployment), b""
        found = self._messages.feed(events) if events else []
        self.usage = self._messages.usage
        self.ended = self._failure is not None or self._messages.ended
        return found

    def close(self) -> list[Event]:
        """The events that the end of the stream completes, or what went wrong."""
        self.ended = True
        if self._failure is not None:
            raise self._failure
        if not self._framing.is_between and not self._messages.ended:
            message = f"{self._deployment} ended its stream in the middle of an event"
            raise BackendCut(message, deployment=self._deployment)
        return self._messages.close()

    def _event(self, message: Message) -> bytes:
        """The event of Messages in one message, as Anthropic itself would send it."""
        if self._failure is not None:
            return b""
        kind = message.headers.get(":message-type")
        if kind == "event":
            if message.headers.get(":event-type") != "chunk":
                return b""
            data = base64.b64decode(_CHUNK.decode(message.payload).bytes, validate=True)
            return b"event: " + _TYPED.decode(data).type.encode() + b"\ndata: " + data.replace(b"\n", b" ") + b"\n\n"
        what = message.headers.get(":exception-type") or message.headers.get(":error-code") or "unknown"
        said = message.headers.get(":error-message") or _said(message.payload)
        error: dict[str, Any] = {"message": said, "type": what, "code": _STATUS.get(what)}
        self._failure = refused_in_answer({"error": error}, deployment=self._deployment)
        return b""


def _said(payload: bytes) -> str:
    try:
        value = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "no message"
    return str(value.get("message", "no message")) if isinstance(value, dict) else "no message"
