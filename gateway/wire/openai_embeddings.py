"""OpenAI's embeddings: read for what budgets and routing need, and passed through byte for byte.

Vectors are not looked at, in base64 or as numbers: a client gets exactly what the backend sent.
"""

from __future__ import annotations

from array import array
from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.errors import BackendBroken, FieldUnsupported, InternalError, InvalidRequest
from gateway.inference.deployment import Deployment
from gateway.inference.events import Event, WholeAnswer
from gateway.inference.request import DraftWish, InferenceRequest, Message, Sampling
from gateway.inference.usage import Usage, counted
from gateway.wire.fields import RAW_FIELDS, refuse_lookalikes, typed
from gateway.wire.json_body import read_object
from gateway.wire.openai_chat_error import has_error, refused_in_answer
from gateway.wire.openai_completions import read_prompts

_ENCODER = msgspec.json.Encoder()
VECTOR_SIZE = 384
"""Numbers in a vector of the model that runs beside the gateway."""
_OWN = ("input", "dimensions", "encoding_format")


class Body(msgspec.Struct):
    """What the gateway reads of a body."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | Annotated[list[Any], Meta(min_length=1, max_length=2048)]
    stream: bool | None = None


_KNOWN = frozenset({*Body.__struct_fields__, "encoding_format", "dimensions", "user"})


class _Answer(msgspec.Struct):
    data: list[msgspec.Raw] | None = None
    usage: Any = None
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
    tokens = counted(answer.usage.get("prompt_tokens")) if isinstance(answer.usage, dict) else None
    usage = None if tokens is None else Usage(input_tokens=tokens)
    return WholeAnswer(body=body, text="", finish_reason="stop", usage=usage)


# --- an answer of our own -------------------------------------------------------------------------------------


class Wanted(msgspec.Struct, frozen=True):
    """Texts to be embedded, and how their vectors are written."""

    texts: tuple[str, ...]
    in_base64: bool


def wanted_of(request: InferenceRequest, deployment: str) -> Wanted:
    """What a model that reads texts, and has vectors of one length, is asked.

    Raises:
        FieldUnsupported: it is asked for something else; `param` is the field.
    """
    if request.surface != "embeddings":
        raise FieldUnsupported(f"{deployment} makes embeddings, and answers nothing else.", param="model")
    given = {name: msgspec.json.decode(request.fields[name]) for name in _OWN if name in request.fields}
    inputs, _ = read_prompts(given["input"], "input")
    texts = tuple(text for text in inputs if isinstance(text, str))
    if len(texts) < len(inputs):
        raise FieldUnsupported(f"{deployment} reads texts: it has other tokens than yours.", param="input")
    if given.get("dimensions") not in (None, VECTOR_SIZE):
        raise FieldUnsupported(f"{deployment} gives {VECTOR_SIZE} dimensions.", param="dimensions")
    coding = given.get("encoding_format") or "float"
    if coding not in {"float", "base64"}:
        raise InvalidRequest("Invalid value for 'encoding_format': use 'float' or 'base64'", param="encoding_format")
    return Wanted(texts, coding == "base64")


def encode_vectors(rows: Sequence[bytes], wanted: Wanted, *, model: str, tokens: int) -> WholeAnswer:
    """The answer that gives `rows`, each float32 in bytes, least significant first."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": b64encode(row).decode() if wanted.in_base64 else array("f", row).tolist(),
        }
        for index, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = _ENCODER.encode({"object": "list", "data": data, "model": model, "usage": usage})
    return WholeAnswer(body=body, text="", finish_reason="stop", usage=Usage(input_tokens=tokens))


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
