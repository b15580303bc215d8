"""A request as the body for a backend that speaks Messages.

A Messages client's own body goes out byte for byte, but for model and limit. Any other request is written out of its
conversation. What Messages has no word for is refused with the field's name. What system and developer say goes into
`system`, wherever it stood; unsigned thoughts of earlier turns are left out, as the API does not take them.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import msgspec
from msgspec import Raw

from gateway.errors import FieldUnsupported, InvalidRequest
from gateway.inference.conversation import (
    Conversation,
    File,
    Image,
    Part,
    Reasoning,
    Refusal,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from gateway.inference.deployment import Deployment
from gateway.inference.request import InferenceRequest
from gateway.wire.openai_chat_read import with_conversation
from gateway.wire.openai_chat_write import refuse_native_only

_ENCODER = msgspec.json.Encoder()
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
_HIGHEST_TEMPERATURE = 1.0


def relay_request(
    request: InferenceRequest, deployment: Deployment, *, max_tokens: int | None, ask_usage: bool = True
) -> bytes:
    """A Messages client's body for `deployment`: model and limit rewritten, all else byte for byte."""
    del ask_usage  # usage comes unasked
    fields = {**request.fields, "model": Raw(_ENCODER.encode(deployment.model))}
    if max_tokens is not None:
        fields["max_tokens"] = Raw(b"%d" % max_tokens)
    return _ENCODER.encode(fields)


def write_request(
    request: InferenceRequest, deployment: Deployment, *, max_tokens: int | None, ask_usage: bool = True
) -> bytes:
    """The Messages body that asks `deployment` the same.

    Raises:
        FieldUnsupported: Messages cannot say it; `param` is the client's field.
    """
    del ask_usage
    request = with_conversation(request)
    conversation = request.conversation
    if conversation is None:
        raise FieldUnsupported(f"{deployment.id} does not serve requests of this kind.", param="model")
    refuse_native_only(request, deployment)
    limit = max_tokens if max_tokens is not None else request.max_tokens
    body: dict[str, Any] = {
        "model": deployment.model,
        "max_tokens": deployment.max_output_tokens if limit is None else limit,
        "messages": _messages(conversation.turns),
    }
    if system := _system(conversation.turns):
        body["system"] = system
    body |= _sampling(request, deployment) | _asked(conversation, deployment)
    if request.stream:
        body["stream"] = True
    return _ENCODER.encode(body)


def _sampling(request: InferenceRequest, deployment: Deployment) -> dict[str, Any]:
    sampling = request.sampling
    for name in ("seed", "presence_penalty", "frequency_penalty"):
        if getattr(sampling, name):
            raise _refused(name, deployment)
    if sampling.temperature is not None and sampling.temperature > _HIGHEST_TEMPERATURE:
        raise _refused("temperature", deployment)
    names = ("temperature", "top_p", "top_k")
    given = {name: value for name in names if (value := getattr(sampling, name)) is not None}
    return given | ({"stop_sequences": list(sampling.stop)} if sampling.stop else {})


def _asked(conversation: Conversation, deployment: Deployment) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if conversation.tools:
        asked["tools"] = [_tool(tool) for tool in conversation.tools]
        choice = conversation.tool_choice
        one_at_a_time = conversation.parallel_tool_calls is False
        if choice is not None or one_at_a_time:
            kind = "auto" if choice is None else _CHOICES.get(choice.kind, "tool")
            named = {"name": choice.name} if choice is not None and choice.kind == "named" else {}
            single = {"disable_parallel_tool_use": True} if one_at_a_time and kind != "none" else {}
            asked["tool_choice"] = {"type": kind, **named, **single}
    config: dict[str, Any] = {}
    if conversation.effort is not None and conversation.effort != "none":
        if conversation.effort not in _EFFORTS:
            raise _refused("reasoning_effort", deployment)
        config["effort"] = _EFFORTS[conversation.effort]
    if conversation.output is not None:
        if conversation.output.schema is None:
            raise _refused("response_format", deployment)
        config["format"] = {"type": "json_schema", "schema": conversation.output.schema}
    if config:
        asked["output_config"] = config
    if conversation.verbosity is not None:
        raise _refused("verbosity", deployment)
    if conversation.user is not None:
        asked["metadata"] = {"user_id": conversation.user}
    return asked


def _refused(field: str, deployment: Deployment) -> FieldUnsupported:
    message = f"{deployment.id} cannot do what '{field}' asks for; leave it out, or name a model that can."
    return FieldUnsupported(message, param=field)


def _tool(tool: Tool) -> dict[str, Any]:
    described = {} if tool.description is None else {"description": tool.description}
    strict = {} if tool.strict is None else {"strict": tool.strict}
    schema = {"type": "object", "properties": {}} if tool.parameters is None else tool.parameters
    return {"name": tool.name, **described, "input_schema": schema, **strict}


# --- messages -------------------------------------------------------------------------------------------------


def _system(turns: tuple[Turn, ...]) -> list[dict[str, Any]]:
    spoken = [part for turn in turns if _is_system(turn) for part in turn.parts]
    return [_block(part) for part in spoken if isinstance(part, Text)]


def _messages(turns: tuple[Turn, ...]) -> list[dict[str, Any]]:
    """Turns of one side next to each other are one message; results of tools stand first in the user's."""
    messages: list[dict[str, Any]] = []
    for role, group in groupby((turn for turn in turns if not _is_system(turn)), key=_side):
        parts = [part for turn in group for part in turn.parts if not _is_unsigned(part)]
        parts.sort(key=lambda part: not isinstance(part, ToolResult))
        if parts:
            messages.append({"role": role, "content": [_block(part) for part in parts]})
    return messages


def _is_system(turn: Turn) -> bool:
    return turn.role in {"system", "developer"}


def _is_unsigned(part: Part) -> bool:
    return isinstance(part, Reasoning) and not part.signature and not part.sealed


def _side(turn: Turn) -> str:
    return "assistant" if turn.role == "assistant" else "user"


def _block(part: Part) -> dict[str, Any]:
    match part:
        case Text() | Refusal():
            return {"type": "text", "text": part.text}
        case Image():
            return {"type": "image", "source": _source(part)}
        case File():
            return {"type": "document", "source": _source(part)} | ({"title": part.name} if part.name else {})
        case ToolCall():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": _input(part)}
        case ToolResult():
            failed = {"is_error": True} if part.is_error else {}
            content = [_block(inner) for inner in part.parts]
            return {"type": "tool_result", "tool_use_id": part.call_id, "content": content, **failed}
        case Reasoning(sealed=sealed) if sealed:
            return {"type": "redacted_thinking", "data": sealed}
        case Reasoning():
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _source(part: Image | File) -> dict[str, Any]:
    if part.url:
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": part.media_type, "data": part.data}


def _input(call: ToolCall) -> object:
    try:
        value = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        message = f"The arguments of the call {call.id[:100]!r} are not a JSON object."
        raise InvalidRequest(message, param="messages")
    return value
