"""A chat request: from a client's body to the canonical request, and from that to a backend's body.

A body is read three times by msgspec, which is cheaper than keeping one tree apart by hand: once whole (the rules of
`json_body`), once typed for what the gateway reads, once as `dict[str, Raw]` for what it only passes on. A backend gets
that last form written out again, never the bytes that came in.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from gateway.inference.deployment import Deployment
from gateway.inference.request import InferenceRequest, Sampling
from gateway.inference.servers import LimitField
from gateway.wire.fields import RAW_FIELDS, draft_wish, refuse_lookalikes, typed
from gateway.wire.json_body import read_object
from gateway.wire.openai_chat_messages import Conversation

_ENCODER = msgspec.json.Encoder()

LENGTH_FIELDS = frozenset({"max_tokens", "max_completion_tokens", "n_predict", "max_new_tokens", "max_output_tokens"})
"""Fields that some backend takes for the answer's limit. When the gateway sets the limit, all but
one are dropped, because each of them would lift it (llama-server prefers `n_predict` to `max_tokens`)."""

_SHAPED_FIELDS = frozenset(
    {"guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "grammar", "json_schema"}
)
"""Fields by which vLLM, SGLang and llama-server take a schema or grammar for the answer."""

Tokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
StopText = Annotated[str, Meta(max_length=4096)]


class StreamOptions(msgspec.Struct):
    """What a stream is to hold beside the answer."""

    include_usage: bool | None = None


class JsonSchema(msgspec.Struct):
    """The schema that an answer has to follow."""

    schema: dict[str, Any] | None = None


class ResponseFormat(msgspec.Struct):
    """What an answer has to look like: `text`, `json_object` or `json_schema`."""

    type: str
    json_schema: JsonSchema | None = None


class Body(msgspec.Struct):
    """What the gateway reads of a body. Null stands for "not given" everywhere, as SDKs send it."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: int | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=64)] | None = None
    tools: list[dict[str, Any]] | None = None
    functions: list[dict[str, Any]] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    metadata: dict[str, str] | None = None


_KNOWN = frozenset(Body.__struct_fields__) | LENGTH_FIELDS | _SHAPED_FIELDS | {"draft", "tool_choice", "prediction"}

_NO_PROMPT = (
    frozenset(Body.__struct_fields__) - {"tools", "functions", "response_format"}
    | LENGTH_FIELDS
    | {
        "logit_bias",
        "modalities",
        "parallel_tool_calls",
        "prompt_cache_key",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "store",
        "tool_choice",
        "user",
        "verbosity",
    }
)
"""Fields that never become input tokens (messages are counted apart). All others count, known or not."""


def decode_request(body: bytes) -> InferenceRequest:
    """The request in a client's body.

    Raises:
        InvalidRequest: not a JSON object, or a field is wrong; `param` is its path where there is one.
    """
    value = read_object(body)
    refuse_lookalikes(value, _KNOWN)
    draft = draft_wish(value.get("draft"))
    read = typed(value, Body)
    fields = RAW_FIELDS.decode(body)
    fields.pop("draft", None)
    conversation = Conversation()
    for message in read.messages:
        conversation.add(message)
    limit_field, limit = _limit(read)
    return InferenceRequest(
        surface="chat",
        model=read.model,
        messages=tuple(conversation.messages),
        fields=fields,
        stream=bool(read.stream),
        include_usage=read.stream_options is not None and bool(read.stream_options.include_usage),
        max_tokens=limit,
        max_tokens_field=limit_field,
        n=read.n or 1,
        sampling=_sampling(read),
        tools=bool(read.tools or read.functions),
        json_output=_is_shaped(read, value),
        json_schema=_schema(read.response_format),
        images=conversation.images,
        audio=conversation.audio,
        logprobs=bool(read.logprobs or read.top_logprobs),
        draft=draft,
        metadata=read.metadata or {},
        prediction_bytes=len(fields["prediction"]) if value.get("prediction") is not None else 0,
        prompt_bytes=conversation.prompt_bytes + sum(len(raw) for key, raw in fields.items() if key not in _NO_PROMPT),
    )


def encode_request(
    request: InferenceRequest, deployment: Deployment, *, max_tokens: int | None, ask_usage: bool = True
) -> bytes:
    """The body for `deployment`: model and limits rewritten, usage asked for on streams, all else byte for byte.

    `max_tokens` is the answer's limit; None leaves what the client said. Without `ask_usage`, for a backend that
    refuses the option, `stream_options` is left out.
    """
    fields = dict(request.fields)
    fields["model"] = Raw(_ENCODER.encode(deployment.model))
    kept = limit_field(request, deployment)
    if max_tokens is None and request.max_tokens_field not in (None, kept):
        max_tokens = request.max_tokens
    if max_tokens is not None:
        for name in LENGTH_FIELDS & fields.keys() - {kept}:
            del fields[name]
        fields[kept] = Raw(b"%d" % max_tokens)
    if request.prediction:
        fields["prediction"] = Raw(_ENCODER.encode({"type": "content", "content": request.prediction}))
    if not ask_usage:
        fields.pop("stream_options", None)
    elif request.stream:
        options = fields.get("stream_options")
        members = RAW_FIELDS.decode(options) if options is not None and bytes(options) != b"null" else {}
        members["include_usage"] = Raw(b"true")
        fields["stream_options"] = Raw(_ENCODER.encode(members))
    return _ENCODER.encode(fields)


def limit_field(request: InferenceRequest, deployment: Deployment) -> LimitField:
    """What the backend calls the limit of an answer: as the client does, where it knows that name.

    Beside a prediction it is `max_tokens`: OpenAI takes no other there.
    """
    server = deployment.backend.server
    if request.surface == "completions" or request.prediction:
        return "max_tokens"
    if request.prediction_bytes and request.max_tokens_field != "max_completion_tokens":
        return "max_tokens"
    named = request.max_tokens_field if server.both_limits and request.surface == "chat" else None
    return "max_completion_tokens" if (named or server.max_tokens_field) == "max_completion_tokens" else "max_tokens"


def _limit(read: Body) -> tuple[LimitField | None, int | None]:
    if read.max_completion_tokens is not None:
        return "max_completion_tokens", read.max_completion_tokens
    if read.max_tokens is not None:
        return "max_tokens", read.max_tokens
    return None, None


def _sampling(read: Body) -> Sampling:
    stop = read.stop or ()
    return Sampling(
        temperature=read.temperature,
        top_p=read.top_p,
        top_k=read.top_k,
        seed=read.seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        presence_penalty=read.presence_penalty,
        frequency_penalty=read.frequency_penalty,
        top_logprobs=(read.top_logprobs or 0) if read.logprobs or read.top_logprobs else None,
    )


def _schema(shape: ResponseFormat | None) -> str:
    """The schema that an answer has to follow, where the client named one in OpenAI's way."""
    if shape is None or shape.type not in {"json_object", "json_schema"}:
        return ""
    named = None if shape.json_schema is None else shape.json_schema.schema
    if shape.type == "json_schema" and named is None:
        return ""
    return _ENCODER.encode(named if shape.type == "json_schema" else {"type": "object"}).decode()


def _is_shaped(read: Body, value: dict[str, Any]) -> bool:
    if read.response_format is not None and read.response_format.type != "text":
        return True
    return any(value[key] is not None for key in _SHAPED_FIELDS & value.keys())
