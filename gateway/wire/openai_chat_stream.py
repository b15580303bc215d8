"""What a backend streams as an answer to a chat request: reads in, events out.

    opening ──first choice──▶ answering ──each choice has its finish reason──▶ finished ──[DONE] or end──▶ closed
       │                          │                                                │
       └────────── error event, event that cannot be read: failed ────────────────┘    end before finished: cut

One read becomes at most one `Relayed`, with the bytes as they came wherever they are plain events. What is not passed
on: the usage-only event (reported at the end), events without choices (they break `chunk.choices[0]` loops, and Azure
begins with one), `[DONE]`, comments, event names and ids. A failure is kept until what came before it has
been given out: the next `feed` or `close` raises it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from gateway.errors import BackendBroken, BackendCut, BackendError
from gateway.inference.events import Event, Relayed, UsageReported
from gateway.inference.usage import Usage
from gateway.wire.openai_chat_answer import Content, read_usage
from gateway.wire.openai_chat_error import has_error, refused_in_answer
from gateway.wire.sse import MAX_EVENT_BYTES, ServerEvent, SSEDecoder, frame

Index = Annotated[int, msgspec.Meta(ge=0, lt=128)]
"""Of a choice; 128 is OpenAI's limit for `n`."""


class Choice(msgspec.Struct, gc=False):
    """A piece of one choice."""

    index: Index = 0
    delta: Content | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, gc=False):
    """One event of a stream, as far as it is read."""

    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    object: Any = None


_CHUNK = msgspec.json.Decoder(Chunk)


class StreamDecoder:
    """Decodes one answer's stream; `n` is the number of choices that were asked for, `read` reads one event.

    Legacy completions differ in nothing but how an event is read.
    """

    def __init__(self, *, deployment: str, n: int = 1, read: Callable[[bytes], Chunk] = _CHUNK.decode) -> None:
        self.ended = False
        """Nothing more is to be read: `[DONE]` came, or the stream failed. `close` says which."""
        self.usage: Usage | None = None
        """The last usage that the backend reported."""
        self._deployment = deployment
        self._n = n
        self._read = read
        self._sse = SSEDecoder()
        self._failure: BackendError | None = None
        self._done = False
        self._usage_data = b""
        self._started: set[int] = set()
        self._finished: set[int] = set()
        self._finish_reason: str | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events of one read, of any size.

        Raises:
            BackendRefused, BackendBroken: the stream failed in an earlier read.
        """
        if self.ended:
            if self._failure is not None:
                raise self._failure
            return []
        payloads = self._sse.plain_payloads(data)
        if payloads is not None:
            return self._relay(payloads, data)
        events = self._relay([self._payload(event) for event in self._sse.feed(data)], None)
        if self._sse.overflowed and not self.ended:
            message = f"{self._deployment} streamed an event larger than {MAX_EVENT_BYTES} bytes"
            self._fail(BackendBroken(message, deployment=self._deployment))
        return events

    def close(self) -> list[Event]:
        """The events that the end of the stream completes: last of all the usage.

        Raises:
            BackendRefused: the backend sent an error in the stream.
            BackendBroken: it sent something that cannot be read.
            BackendCut: it ended before the answer was complete.
        """
        events = self._rest()
        self.ended = True
        if self._failure is not None:
            raise self._failure
        finished = bool(self._started) and self._started == self._finished
        # Without [DONE], a choice that never began may still have been on its way.
        if not finished or not (self._done or len(self._finished) >= self._n):
            message = f"{self._deployment} ended its stream before the answer was complete"
            raise BackendCut(message, deployment=self._deployment)
        if self.usage is not None:
            events.append(UsageReported(self.usage, frame(self._usage_data) if self._usage_data else b""))
        return events

    def _rest(self) -> list[Event]:
        if self.ended:
            return []
        payloads = [self._payload(event) for event in self._sse.close()]
        events = self._relay(payloads, None)
        if isinstance(self._failure, BackendBroken):
            # The last event has no end: what cannot be read is half of it.
            message = f"{self._deployment} ended its stream in the middle of an event"
            self._failure = BackendCut(message, deployment=self._deployment)
        return events

    def _payload(self, event: ServerEvent) -> bytes:
        """The event's data in one line, as the client gets it."""
        if event.name == b"error":
            return _as_error(event.data)
        if b"\n" not in event.data:
            return event.data
        try:
            return msgspec.json.format(event.data, indent=-1)
        except (msgspec.DecodeError, RecursionError):
            return event.data.replace(b"\n", b" ")

    def _relay(self, payloads: list[bytes], data: bytes | None) -> list[Event]:
        """`data` is what the payloads were taken from, when it is nothing but their frames."""
        kept: list[bytes] = []
        text = ""
        size = 0
        was_finished = self._finish_reason is not None
        for payload in payloads:
            chunk = self._chunk(payload)
            if chunk is None:
                if self.ended:
                    break
                continue
            kept.append(payload)
            for choice in chunk.choices or ():
                delta = choice.delta
                if delta is not None:
                    size += delta.size()
                    if choice.index == 0 and delta.content:
                        text += delta.text()
                if choice.index not in self._started or choice.finish_reason is not None:
                    self._note(choice)
        if not kept:
            return []
        if data is None or len(kept) < len(payloads):
            data = b"".join([frame(payload) for payload in kept])
        return [
            Relayed(
                data=data,
                text=text,
                content=size > 0,
                content_bytes=size,
                finish_reason=None if was_finished else self._finish_reason,
            )
        ]

    def _chunk(self, payload: bytes) -> Chunk | None:
        """The chunk to be passed on; None for what is kept back, with `ended` set when it is the last."""
        if payload == b"[DONE]":
            self.ended = self._done = True
            return None
        try:
            chunk = self._read(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._unreadable(payload, error)
            return None
        if chunk.error or chunk.object == "error":
            self._fail(refused_in_answer(msgspec.json.decode(payload), deployment=self._deployment))
            return None
        if chunk.usage is not None and (usage := read_usage(chunk.usage)) is not None:
            self.usage = usage
            if not chunk.choices:
                self._usage_data = payload
        return chunk if chunk.choices else None

    def _unreadable(self, payload: bytes, error: Exception) -> None:
        payload = payload.strip()
        if payload == b"[DONE]":
            self.ended = self._done = True
        elif payload:
            message = f"{self._deployment} streamed an event that is not a chat completion chunk: {error}"
            self._fail(BackendBroken(message, deployment=self._deployment))

    def _note(self, choice: Choice) -> None:
        index = choice.index
        self._started.add(index)
        if choice.finish_reason is None or index in self._finished:
            return
        self._finished.add(index)
        if len(self._finished) >= self._n:
            self._finish_reason = choice.finish_reason

    def _fail(self, error: BackendError) -> None:
        self.ended = True
        if self._failure is None:
            self._failure = error


def _as_error(data: bytes) -> bytes:
    """The payload of an event named `error`: an error object, whatever it held."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = data.decode(errors="replace")
    if has_error(value):
        return msgspec.json.encode(value)
    return msgspec.json.encode({"error": value or "no message"})
