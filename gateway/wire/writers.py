"""What writes answers in a public schema, whichever it is."""

from __future__ import annotations

from typing import Protocol

from gateway.errors import FirstdraftError
from gateway.inference.events import Event
from gateway.inference.request import DraftWish, InferenceRequest


class StreamWriter(Protocol):
    """Writes one streamed answer."""

    def encode(self, event: Event) -> bytes:
        """The bytes for an event; empty when the client is not to see it."""

    def end(self) -> bytes:
        """What ends an answer that is complete."""

    def error(self, error: FirstdraftError, request_id: str) -> bytes:
        """What ends one that failed."""


class AnswerWriter(Protocol):
    """Collects one answer that is not streamed."""

    def add(self, event: Event) -> None:
        """Take in the next event."""

    def body(self) -> bytes:
        """The response's body."""


class MakeStream(Protocol):
    """Makes the writer of a stream; `created` in Unix seconds."""

    def __call__(
        self, *, request: InferenceRequest, response_id: str, created: int, model: str, wish: DraftWish
    ) -> StreamWriter: ...


class MakeAnswer(Protocol):
    """Makes the writer of a whole answer; `created` in Unix seconds."""

    def __call__(
        self, *, request: InferenceRequest, response_id: str, created: int, model: str, wish: DraftWish
    ) -> AnswerWriter: ...
