"""A prompt in full, in no schema's words: where the client's schema and the backend's differ, it goes through here.

A conversation is a list of turns. What a tool gave stands in a turn of role `tool`, however a schema groups it. Parts
keep their order. What no other schema has a word for is not in here: `InferenceRequest.native_only` names it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Role = Literal["system", "developer", "user", "assistant", "tool"]


class Text(msgspec.Struct, frozen=True, tag=True):
    """Plain text."""

    text: str


class Image(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """An image: at a URL, or as `data` (base64) of a `media_type` such as `image/png`."""

    url: str = ""
    data: str = ""
    media_type: str = ""
    detail: str | None = None
    """How closely it is to be looked at: `low`, `high`, `auto`."""


class File(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A document: at a URL, or as `data` (base64) of a `media_type` such as `application/pdf`."""

    url: str = ""
    data: str = ""
    media_type: str = ""
    name: str = ""


class ToolCall(msgspec.Struct, frozen=True, tag=True):
    """The model calls a tool. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


class ToolResult(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What a called tool gave back."""

    call_id: str
    parts: tuple[Text | Image | File, ...]
    is_error: bool = False


class Reasoning(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What the model thought. `signature` and `sealed` mean something only to the provider that wrote them."""

    text: str = ""
    signature: str = ""
    sealed: str = ""
    """Thoughts that only the provider can read."""


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """The model's words for not answering."""

    text: str


Part = Text | Image | File | ToolCall | ToolResult | Reasoning | Refusal


class Turn(msgspec.Struct, frozen=True):
    """One message. `name` tells participants of one role apart."""

    role: Role
    parts: tuple[Part, ...]
    name: str = ""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call. `parameters` is a JSON schema; None: it takes none."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether and what the model must call: `named` means the tool of that name."""

    kind: Literal["auto", "none", "required", "named"]
    name: str = ""


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is to be JSON: any object (`schema` None), or what the schema describes."""

    schema: dict[str, Any] | None = None
    name: str = ""
    description: str | None = None
    strict: bool | None = None


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the model is told. Limits and sampling stand on the request."""

    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    output: OutputFormat | None = None
    effort: str | None = None
    """How hard to think: `none`, `minimal`, `low`, `medium`, `high`, `xhigh`."""
    verbosity: str | None = None
    user: str | None = None
    """The client's own name for its end user."""
