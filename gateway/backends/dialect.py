"""How a client's surface is asked of a backend's API: where to, in which words, and how the answer is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol
from urllib.parse import quote

from gateway.inference.deployment import Deployment
from gateway.inference.events import Emit, Event, WholeAnswer
from gateway.inference.request import InferenceRequest, Surface
from gateway.inference.usage import Usage
from gateway.wire import (
    anthropic_messages_answer,
    anthropic_messages_write,
    openai_chat_write,
    openai_completions,
    openai_embeddings,
)
from gateway.wire.hosted_models import BEDROCK_VERSION, VERTEX_VERSION, BedrockDecoder, hosted_body
from gateway.wire.openai_chat import StreamDecoder, decode_answer, encode_request
from gateway.wire.openai_chat_canonical import CanonicalAnswer


class _Encode(Protocol):
    def __call__(
        self, request: InferenceRequest, deployment: Deployment, *, max_tokens: int | None, ask_usage: bool
    ) -> bytes: ...


class _Decode(Protocol):
    def __call__(self, body: bytes, *, deployment: str) -> WholeAnswer: ...


class _Decoder(Protocol):
    def __call__(self, *, deployment: str, n: int) -> Decoder: ...


class Decoder(Protocol):
    """Reads one answer's stream, and says when it is over."""

    ended: bool
    usage: Usage | None

    def feed(self, data: bytes) -> list[Event]:
        """The events of one read."""

    def close(self) -> list[Event]:
        """The events that the end of the stream completes."""


class Translator(Protocol):
    """Turns one answer's events into deltas."""

    def events(self, event: Event) -> list[Event]:
        """The events in place of one."""

    def end(self) -> list[Event]:
        """What is left at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One surface on one kind of backend. `translator`: the client speaks another schema than the backend."""

    path: str
    """After the base URL; `{model}` stands for the model's name, `{api_version}` for the backend's."""
    stream_path: str = ""
    """The same for streams, where it differs."""
    encode: _Encode
    at_root: bool = False
    """`path` is under the server's root, not under its API's `/v1`."""
    decode: _Decode = decode_answer
    decoder: _Decoder = StreamDecoder
    translator: Callable[[], Translator] | None = None
    stream_type: str = "text/event-stream"

    def url_path(self, deployment: Deployment, *, stream: bool) -> str:
        """Where a request goes, under the base URL."""
        path, version = (self.stream_path if stream else "") or self.path, deployment.backend.api_version
        if "{model}" in path:
            path = path.replace("{model}", quote(deployment.model.removeprefix(_PUBLISHER), safe=""))
        return f"{path}?api-version={version}" if version else path


_CHAT = Dialect(path="/chat/completions", encode=encode_request)
_THROUGH_CHAT = Dialect(path="/chat/completions", encode=openai_chat_write.write_request, translator=CanonicalAnswer)

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


_MESSAGES = Dialect(
    path="/messages",
    encode=anthropic_messages_write.relay_request,
    decode=anthropic_messages_answer.decode_answer,
    decoder=anthropic_messages_answer.MessagesDecoder,
)
_THROUGH_MESSAGES = replace(
    _MESSAGES, encode=anthropic_messages_write.write_request, translator=anthropic_messages_answer.CanonicalMessage
)


def _hosted(dialect: Dialect, *, path: str, stream_path: str, version: str, stream_in_url: bool) -> Dialect:
    """Messages, as a host of Anthropic's models has it."""

    def encode(request: InferenceRequest, deployment: Deployment, *, max_tokens: int | None, ask_usage: bool) -> bytes:
        body = dialect.encode(request, deployment, max_tokens=max_tokens, ask_usage=ask_usage)
        return hosted_body(body, version=version, stream_in_url=stream_in_url)

    found = replace(dialect, path=path, stream_path=stream_path, encode=encode)
    if stream_in_url:
        return replace(found, decoder=BedrockDecoder, stream_type="application/vnd.amazon.eventstream")
    return found


_PUBLISHER = "anthropic/"
_VERTEX, _BEDROCK = (
    tuple(
        _hosted(dialect, path=path, stream_path=stream_path, version=version, stream_in_url=stream_in_url)
        for dialect in (_MESSAGES, _THROUGH_MESSAGES)
    )
    for path, stream_path, version, stream_in_url in (
        (
            "/publishers/anthropic/models/{model}:rawPredict",
            "/publishers/anthropic/models/{model}:streamRawPredict",
            VERTEX_VERSION,
            False,
        ),
        ("/model/{model}/invoke", "/model/{model}/invoke-with-response-stream", BEDROCK_VERSION, True),
    )
)


def _below(dialect: Dialect, prefix: str) -> Dialect:
    return replace(dialect, path=prefix + dialect.path)


_AZURE = {name: _below(dialect, "/openai/deployments/{model}") for name, dialect in _OPENAI.items()}
_THROUGH_AZURE = _below(_THROUGH_CHAT, "/openai/deployments/{model}")
_GEMINI = _below(_CHAT, "/endpoints/openapi")
_THROUGH_GEMINI = _below(_THROUGH_CHAT, "/endpoints/openapi")


def dialect_of(deployment: Deployment, surface: Surface) -> Dialect:
    """How a deployment is asked: in the client's own schema where it has that one, else in its main one."""
    backend = deployment.backend
    match backend.type:
        case "anthropic":
            return _MESSAGES if surface == "messages" else _THROUGH_MESSAGES
        case "bedrock":
            return _BEDROCK[surface != "messages"]
        case "vertex" if deployment.model.removeprefix(_PUBLISHER).startswith("claude"):
            return _VERTEX[surface != "messages"]
        case "vertex":
            return _GEMINI if surface == "chat" else _THROUGH_GEMINI
        case "azure" if not backend.base_url.endswith("/openai/v1"):
            return _AZURE.get(surface, _THROUGH_AZURE)
        case _:
            return _OPENAI.get(surface, _THROUGH_CHAT)


class Translation:
    """Emits an answer of a backend's schema in no schema's words."""

    def __init__(self, emit: Emit, translator: Translator) -> None:
        self._emit = emit
        self._answer = translator

    async def emit(self, event: Event) -> None:
        """Emit what stands in place of `event`."""
        for found in self._answer.events(event):
            await self._emit(found)

    async def end(self) -> None:
        """Emit the finish, if no usage came that would have brought it."""
        for found in self._answer.end():
            await self._emit(found)
