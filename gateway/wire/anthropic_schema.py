"""Anthropic's schemas as the document at `/openapi.json` describes them; see `openai_schema`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.wire import anthropic_messages_request as messages
from gateway.wire.openai_schema import Count, Draft, Id


class TextBlock(msgspec.Struct, tag_field="type", tag="text"):
    """Words."""

    text: str


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use"):
    """A call that the model made."""

    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(msgspec.Struct, tag_field="type", tag="tool_result"):
    """What a called tool gave."""

    tool_use_id: str
    content: str | list[TextBlock] | None = None


class InputMessage(msgspec.Struct):
    """One message. Other kinds of blocks pass through to backends that know them."""

    role: Literal["user", "assistant"]
    content: str | list[TextBlock | ToolUseBlock | ToolResultBlock]


class Tool(msgspec.Struct):
    """A tool that the model may use."""

    name: Id
    input_schema: dict[str, Any]
    description: str | None = None


class Thinking(msgspec.Struct):
    """Whether the model thinks aloud before it answers."""

    type: Literal["disabled", "adaptive"]


class AutoChoice(msgspec.Struct):
    """Which tool the model has to use."""

    type: Literal["auto", "any", "none"]


class CountRequest(messages.Body):
    """`POST /v1/messages/count_tokens`."""

    messages: Annotated[list[InputMessage], Meta(min_length=1)]  # type: ignore[assignment]
    system: str | list[TextBlock] | None = None  # type: ignore[assignment]
    tools: list[Tool] | None = None  # type: ignore[assignment]
    tool_choice: AutoChoice | None = None  # type: ignore[assignment]
    thinking: Thinking | None = None  # type: ignore[assignment]
    draft: Draft | None = None


class MessagesRequest(CountRequest, kw_only=True):
    """`POST /v1/messages`."""

    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)]


class AnthropicErrorFields(msgspec.Struct):
    """What went wrong, and which field is to blame."""

    type: str
    message: str
    code: str | None = None
    param: str | None = None


class AnthropicError(msgspec.Struct):
    """An error in Anthropic's shape."""

    type: Literal["error"]
    error: AnthropicErrorFields
    request_id: str | None = None


class AnthropicModel(msgspec.Struct):
    """A name that a client may send as `model`, for clients that send `anthropic-version`."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str


class AnthropicModelList(msgspec.Struct):
    """All of them, on one page."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


class MessageUsage(msgspec.Struct):
    """Tokens of a message."""

    input_tokens: Count
    output_tokens: Count


class Message(msgspec.Struct):
    """The answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    usage: MessageUsage


class TokenCount(msgspec.Struct):
    """An estimate of a request's input tokens."""

    input_tokens: Count
