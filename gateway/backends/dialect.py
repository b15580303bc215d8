"""How a client's surface is asked of a backend's API: where to, in which words, and how the answer is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from gateway.inference.deployment import Deployment
from gateway.inference.events import Emit, Event, WholeAnswer
from gateway.inference.request import InferenceRequest, Surface
from gateway.wire import openai_completions, openai_embeddings
from gateway.wire.openai_chat import StreamDecoder, decode_answer, encode_request
from gateway.wire.openai_chat_canonical import CanonicalAnswer
from gateway.wire.openai_chat_write import write_request


class _Encode(Protocol):
    def __call__(
        self, request: InferenceRequest, deployment: Deployment, *, max_tokens: int | None, ask_usage: bool
    ) -> bytes: ...


class _Decode(Protocol):
    def __call__(self, body: bytes, *, deployment: str) -> WholeAnswer: ...


class _Decoder(Protocol):
    def __call__(self, *, deployment: str, n: int) -> StreamDecoder: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One surface on one kind of backend. `translates`: the client speaks another schema than the backend."""

    path: str
    encode: _Encode
    decode: _Decode = decode_answer
    decoder: _Decoder = StreamDecoder
    translates: bool = False


_CHAT = Dialect(path="/chat/completions", encode=encode_request)
_THROUGH_CHAT = Dialect(path="/chat/completions", encode=write_request, translates=True)

_OPENAI: Mapping[Surface, Dialect] = MappingProxyType(
    {
        "chat": _CHAT,
        "completions": Dialect(
            path="/completions",
            encode=encode_request,
            decode=openai_completions.decode_completion,
            decoder=openai_completions.stream_decoder,
        ),
        "embeddings": Dialect(
            path="/embeddings", encode=openai_embeddings.encode_request, decode=openai_embeddings.decode_answer
        ),
    }
)


def openai_dialect(surface: Surface) -> Dialect:
    """How a backend with OpenAI's API is asked: in the client's own schema where it has that one, else as a chat."""
    return _OPENAI.get(surface, _THROUGH_CHAT)


class Translation:
    """Emits an answer of a backend's schema in no schema's words."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._answer = CanonicalAnswer()

    async def emit(self, event: Event) -> None:
        """Emit what stands in place of `event`."""
        for found in self._answer.events(event):
            await self._emit(found)

    async def end(self) -> None:
        """Emit the finish, if no usage came that would have brought it."""
        for found in self._answer.end():
            await self._emit(found)
