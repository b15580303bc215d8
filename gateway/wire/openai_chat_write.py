"""A conversation of another schema as the body of a chat request.

What chat has no word for is refused with the field's name: it would change the answer. Left out, because they do not:
what the model thought in earlier turns (no model is shown another's thoughts; providers drop them too) and cache marks.
A tool's failure, which chat cannot mark, is said in its text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import FieldUnsupported, InvalidRequest
from gateway.inference.conversation import (
    Conversation,
    File,
    Image,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from gateway.inference.deployment import Deployment
from gateway.inference.request import InferenceRequest, Sampling

_ENCODER = msgspec.json.Encoder()
FAILED = "Error: "
"""Before the text of a tool that failed."""


def write_request(
    request: InferenceRequest, deployment: Deployment, *, max_tokens: int | None, ask_usage: bool = True
) -> bytes:
    """The chat body that asks `deployment` the same; on a stream with its usage, unless not `ask_usage`.

    Raises:
        FieldUnsupported: chat cannot say it; `param` is the client's field.
    """
    conversation = request.conversation
    if conversation is None:
        raise FieldUnsupported(f"{deployment.id} does not serve requests of this kind.", param="model")
    refuse_native_only(request, deployment)
    body: dict[str, Any] = {
        "model": deployment.model,
        "messages": [message for turn in conversation.turns for message in _messages(turn, deployment)],
    }
    limit = max_tokens if max_tokens is not None else request.max_tokens
    if limit is not None:
        body[deployment.backend.server.max_tokens_field] = limit
    body |= _sampling(request.sampling) | _asked(conversation)
    if request.prediction:
        body["prediction"] = {"type": "content", "content": request.prediction}
    if request.stream:
        body["stream"] = True
        if ask_usage:
            body["stream_options"] = {"include_usage": True}
    return _ENCODER.encode(body)


def refuse_native_only(request: InferenceRequest, deployment: Deployment, *, can: str = "") -> None:
    """Raises FieldUnsupported when the request needs a backend of its own schema; `can`: a field that does not."""
    field = next((name for name in request.native_only if name != can), None)
    if field is not None:
        message = f"{deployment.id} cannot do what '{field}' asks for; leave it out, or name a model that can."
        raise FieldUnsupported(message, param=field)


def _sampling(sampling: Sampling) -> dict[str, Any]:
    names = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")
    given = {name: value for name in names if (value := getattr(sampling, name)) is not None}
    return given | ({"stop": list(sampling.stop)} if sampling.stop else {})


def _asked(conversation: Conversation) -> dict[str, Any]:
    """Everything beside messages and limits."""
    asked: dict[str, Any] = {}
    if conversation.tools:
        asked["tools"] = [_tool(tool) for tool in conversation.tools]
    if conversation.tool_choice is not None and conversation.tools:
        asked["tool_choice"] = _tool_choice(conversation.tool_choice)
    if conversation.parallel_tool_calls is not None and conversation.tools:
        asked["parallel_tool_calls"] = conversation.parallel_tool_calls
    if conversation.output is not None:
        asked["response_format"] = _response_format(conversation.output)
    named = {
        "reasoning_effort": conversation.effort,
        "verbosity": conversation.verbosity,
        "user": conversation.user,
    }
    return asked | {name: value for name, value in named.items() if value is not None}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> object:
    return {"type": "function", "function": {"name": choice.name}} if choice.kind == "named" else choice.kind


def _response_format(output: OutputFormat) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    described: dict[str, Any] = {"name": output.name or "answer", "schema": output.schema}
    if output.description is not None:
        described["description"] = output.description
    if output.strict is not None:
        described["strict"] = output.strict
    return {"type": "json_schema", "json_schema": described}


# --- messages -------------------------------------------------------------------------------------------------


def _messages(turn: Turn, deployment: Deployment) -> list[dict[str, Any]]:
    if turn.role == "tool":
        return [_result(part, deployment) for part in turn.parts if isinstance(part, ToolResult)]
    message: dict[str, Any] = {"role": turn.role}
    if turn.name:
        message["name"] = turn.name
    content = [_content(part, deployment) for part in turn.parts if not isinstance(part, ToolCall | Reasoning)]
    calls = [_call(part) for part in turn.parts if isinstance(part, ToolCall)]
    if not content:
        message["content"] = None if calls else ""
    elif len(content) == 1 and content[0]["type"] == "text":
        message["content"] = content[0]["text"]
    else:
        message["content"] = content
    if calls:
        message["tool_calls"] = calls
    return [message]


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _result(result: ToolResult, deployment: Deployment) -> dict[str, Any]:
    texts = [part.text for part in result.parts if isinstance(part, Text)]
    if len(texts) != len(result.parts):
        message = f"{deployment.id} takes only text as the result of a tool, and this one has an image or a file."
        raise FieldUnsupported(message, param="messages")
    if result.is_error:
        texts = [FAILED + (texts[0] if texts else ""), *texts[1:]]
    content = texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
    return {"role": "tool", "tool_call_id": result.call_id, "content": content or ""}


def _content(part: Part, deployment: Deployment) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Refusal():
            return {"type": "refusal", "refusal": part.text}
        case Image():
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            detail = {} if part.detail is None else {"detail": part.detail}
            return {"type": "image_url", "image_url": {"url": url, **detail}}
        case File():
            if part.url:
                message = f"{deployment.id} cannot fetch a document by its URL; send its data."
                raise FieldUnsupported(message, param="messages")
            data = f"data:{part.media_type};base64,{part.data}"
            return {"type": "file", "file": {"filename": part.name or "document", "file_data": data}}
        case ToolCall() | ToolResult() | Reasoning():
            raise InvalidRequest("A tool's call or result stands in a message of the wrong role.", param="messages")
