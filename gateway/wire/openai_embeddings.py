"""OpenAI's embeddings: read for what budgets and routing need, and passed through byte for byte.

Vectors are not looked at, in base64 or as numbers: a client gets exactly what the backend sent.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.errors import BackendBroken, InternalError, InvalidRequest
from gateway.inference.deployment import Deployment
from gateway.inference.events import Event, WholeAnswer
from gateway.inference.request import DraftWish, InferenceRequest, Message, Sampling
from gateway.inference.usage import Usage
from gateway.wire.fields import RAW_FIELDS, refuse_lookalikes, typed
from gateway.wire.json_body import read_object
from gateway.wire.openai_chat_error import has_error, refused_in_answer
from gateway.wire.openai_completions import read_prompts

_ENCODER = msgspec.json.Encoder()


class Body(msgspec.Struct):
    """What the gateway reads of a body."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | Annotated[list[Any], Meta(min_length=1, max_length=2048)]
    stream: bool | None = None


_KNOWN = frozenset({*Body.__struct_fields__, "encoding_format", "dimensions", "user"})


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Answer(msgspec.Struct):
    data: list[msgspec.Raw] | None = None
    usage: _Usage | None = None
    error: Any = None
    object: Any = None


_ANSWER = msgspec.json.Decoder(_Answer)


def decode_request(body: bytes) -> InferenceRequest:
    """The request in a client's body.

    Raises:
        InvalidRequest: not a JSON object, or a field is wrong; `param` is its path where there is one.
    """
    value = read_object(body)
    refuse_lookalikes(value, _KNOWN)
    read = typed(value, Body)
    if read.stream:
        raise InvalidRequest("Embeddings cannot be streamed; leave 'stream' out", param="stream")
    inputs, size = read_prompts(read.input, "input")
    return InferenceRequest(
        surface="embeddings",
        model=read.model,
        messages=tuple(Message("user", text) for text in inputs if isinstance(text, str)),
        fields=RAW_FIELDS.decode(body),
        max_tokens=1,  # none come out; a hold asks for one at least
        sampling=Sampling(temperature=0),  # the same input has the same vectors: they may be cached
        draft=DraftWish.OFF,
        prompt_bytes=size,
        native_only=("input",),
    )


def encode_request(
    request: InferenceRequest,
    deployment: Deployment,
    *,
    max_tokens: int | None,  # noqa: ARG001 as all requests are encoded
    ask_usage: bool = True,  # noqa: ARG001 as all requests are encoded
) -> bytes:
    """The body for `deployment`: the model rewritten, all else byte for byte."""
    return _ENCODER.encode({**request.fields, "model": msgspec.Raw(_ENCODER.encode(deployment.model))})


def decode_answer(body: bytes, *, deployment: str) -> WholeAnswer:
    """The vectors in a backend's body, as they came.

    Raises:
        BackendRefused: the body is an error object.
        BackendBroken: it is not JSON, or has no vectors.
    """
    try:
        answer = _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"{deployment} answered something that is not a list of embeddings: {error}"
        raise BackendBroken(message, deployment=deployment) from None
    if answer.error or answer.object == "error":
        value = msgspec.json.decode(body)
        if has_error(value):
            raise refused_in_answer(value, deployment=deployment)
    if not answer.data:
        raise BackendBroken(f"{deployment} answered without embeddings", deployment=deployment)
    usage = None if answer.usage is None else Usage(input_tokens=max(0, answer.usage.prompt_tokens))
    return WholeAnswer(body=body, text="", finish_reason="stop", usage=usage)


class AnswerEncoder:
    """Passes a backend's body on."""

    def __init__(
        self, *, request: InferenceRequest, response_id: str, created: int, model: str, wish: DraftWish
    ) -> None:
        del request, response_id, created, model, wish  # nothing of it is said in this schema
        self._body = b""

    def add(self, event: Event) -> None:
        """Take in the next event."""
        if isinstance(event, WholeAnswer):
            self._body = event.body

    def body(self) -> bytes:
        """The response's body."""
        if not self._body:
            raise InternalError("there are no embeddings in the answer")
        return self._body
