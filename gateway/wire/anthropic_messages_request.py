"""A Messages request: from a client's body to the canonical request, with its conversation in full.

What no other schema has a word for is collected in `native_only` and judged when a deployment is asked: a backend that
speaks Messages gets the body itself. Left out of the conversation because they do not change an answer: marks and hints
for the provider's cache, its service tier, and how tool input is streamed.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.errors import InvalidRequest
from gateway.inference.conversation import Conversation, OutputFormat, Tool, ToolChoice
from gateway.inference.request import InferenceRequest, Sampling
from gateway.wire.anthropic_messages_turns import Turns
from gateway.wire.fields import RAW_FIELDS, draft_wish, object_of, refuse_lookalikes, text_of, typed
from gateway.wire.flattened import flatten, schema_text
from gateway.wire.json_body import read_object

_ENCODER = msgspec.json.Encoder()
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "xhigh"}
_LOW_BUDGET, _MEDIUM_BUDGET = 2_048, 8_192
"""Tokens for thinking, up to which an effort is called low, and medium."""
_HINTS = frozenset({"cache_control", "service_tier"})
_TOOL_HINTS = frozenset({"cache_control", "eager_input_streaming", "type"})
_TOOL_FIELDS = frozenset({"name", "description", "input_schema", "strict"})


class Body(msgspec.Struct):
    """What the gateway reads of a body. Null stands for "not given" everywhere, as SDKs send it."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    stop_sequences: Annotated[list[Annotated[str, Meta(max_length=4096)]], Meta(max_length=64)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


_READ = frozenset(Body.__struct_fields__)
_KNOWN = _READ | _HINTS | {"draft"}


def decode_request(body: bytes) -> InferenceRequest:
    """The request in a client's body.

    Raises:
        InvalidRequest: not a JSON object, or a field is wrong; `param` is its path where there is one.
    """
    request = decode_count_request(body)
    if request.max_tokens is None:
        raise InvalidRequest("Invalid body: Object missing required field `max_tokens`", param="max_tokens")
    return request


def decode_count_request(body: bytes) -> InferenceRequest:
    """As `decode_request`, for counting tokens: `max_tokens` may be missing."""
    value = read_object(body)
    refuse_lookalikes(value, _KNOWN)
    wish = draft_wish(value.get("draft"))
    read = typed(value, Body)
    fields = RAW_FIELDS.decode(body)
    fields.pop("draft", None)
    turns = Turns()
    turns.system(read.system)
    for index, message in enumerate(read.messages):
        turns.message(message, f"messages[{index}]")
    if read.messages[-1].get("role") == "assistant":
        turns.native_only.append(f"messages[{len(read.messages) - 1}]")
    native_only = [key for key, given in value.items() if key not in _KNOWN and given is not None]
    conversation = _conversation(read, turns, native_only)
    flat = flatten(conversation)
    metadata = read.metadata or {}
    return InferenceRequest(
        surface="messages",
        model=read.model,
        messages=flat.messages,
        fields=fields,
        stream=bool(read.stream),
        include_usage=True,
        max_tokens=read.max_tokens,
        max_tokens_field="max_tokens",
        sampling=Sampling(
            temperature=read.temperature, top_p=read.top_p, top_k=read.top_k, stop=tuple(read.stop_sequences or ())
        ),
        tools=bool(read.tools),
        json_output=conversation.output is not None,
        json_schema=schema_text(conversation.output),
        images=flat.images,
        draft=wish,
        metadata={key: text for key, text in metadata.items() if isinstance(text, str)},
        prompt_bytes=flat.prompt_bytes,
        conversation=conversation,
        native_only=tuple(native_only + turns.native_only),
        shows_reasoning=_thinks(read.thinking),
    )


def _conversation(read: Body, turns: Turns, native_only: list[str]) -> Conversation:
    choice = read.tool_choice
    one_at_a_time = choice is not None and choice.get("disable_parallel_tool_use") is True
    config = read.output_config or {}
    native_only += [f"output_config.{key}" for key in config if key not in {"effort", "format"}]
    user = (read.metadata or {}).get("user_id")
    return Conversation(
        turns=tuple(turns.turns),
        tools=tuple(
            tool
            for index, given in enumerate(read.tools or ())
            if (tool := _tool(given, index, native_only)) is not None
        ),
        tool_choice=None if choice is None else _tool_choice(choice),
        parallel_tool_calls=False if one_at_a_time else None,
        output=_output(config.get("format")),
        effort=_effort(read.thinking, config.get("effort")),
        user=user if isinstance(user, str) else None,
    )


def _tool(given: dict[str, Any], index: int, native_only: list[str]) -> Tool | None:
    """A tool of the client's own; None for one that the provider runs."""
    path = f"tools[{index}]"
    kind = given.get("type")
    if kind not in {None, "custom"}:
        native_only.append(path)
        return None
    native_only += [f"{path}.{key}" for key, value in given.items() if value and key not in _TOOL_FIELDS | _TOOL_HINTS]
    strict = given.get("strict")
    return Tool(
        name=text_of(given, "name", path),
        description=text_of(given, "description", path, default="") if given.get("description") is not None else None,
        parameters=object_of(given.get("input_schema"), f"{path}.input_schema"),
        strict=strict if isinstance(strict, bool) else None,
    )


def _tool_choice(choice: dict[str, Any]) -> ToolChoice:
    match choice.get("type"):
        case "auto":
            return ToolChoice("auto")
        case "any":
            return ToolChoice("required")
        case "none":
            return ToolChoice("none")
        case "tool":
            return ToolChoice("named", text_of(choice, "name", "tool_choice"))
        case _:
            message = "Invalid value for 'tool_choice.type': use 'auto', 'any', 'tool' or 'none'"
            raise InvalidRequest(message, param="tool_choice.type")


def _output(given: object) -> OutputFormat | None:
    if given is None:
        return None
    described = object_of(given, "output_config.format")
    if described.get("type") != "json_schema":
        message = "Invalid value for 'output_config.format.type': use 'json_schema'"
        raise InvalidRequest(message, param="output_config.format.type")
    return OutputFormat(schema=object_of(described.get("schema"), "output_config.format.schema"), strict=True)


def _effort(thinking: dict[str, Any] | None, effort: object) -> str | None:
    """How hard to think. A budget in tokens becomes the effort that is nearest to it."""
    if isinstance(effort, str):
        if effort not in _EFFORTS:
            message = f"Invalid value for 'output_config.effort': use {', '.join(_EFFORTS)}"
            raise InvalidRequest(message, param="output_config.effort")
        return _EFFORTS[effort]
    if thinking is None or thinking.get("type") != "enabled":
        return None
    budget = thinking.get("budget_tokens")
    if type(budget) is not int or budget < 1:
        message = "Invalid value for 'thinking.budget_tokens': expected a number of tokens"
        raise InvalidRequest(message, param="thinking.budget_tokens")
    return "low" if budget <= _LOW_BUDGET else "medium" if budget <= _MEDIUM_BUDGET else "high"


def _thinks(thinking: dict[str, Any] | None) -> bool:
    """The client expects thinking blocks in the answer."""
    if thinking is None:
        return False
    kind = thinking.get("type")
    if kind not in {"enabled", "adaptive", "disabled"}:
        message = "Invalid value for 'thinking.type': use 'enabled', 'adaptive' or 'disabled'"
        raise InvalidRequest(message, param="thinking.type")
    return kind != "disabled" and thinking.get("display") != "omitted"
