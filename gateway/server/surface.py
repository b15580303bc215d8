"""A public schema as the server sees it: how a body is read, and how answers and errors are written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from gateway.errors import FirstdraftError
from gateway.inference.events import Event
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.inference.request import Surface as SurfaceName
from gateway.pipeline import Exchange


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


Finish = Callable[[web.Request, Exchange, StreamWriter | AnswerWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """One public schema."""

    name: SurfaceName
    decode: Callable[[bytes], InferenceRequest]
    stream: MakeStream
    answer: MakeAnswer
    id_prefix: str
    """Of the ids of answers that the gateway makes."""
    finish: Finish | None = None
    """What is to be done with a whole answer before its end is told to the client."""
