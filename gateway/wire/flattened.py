"""A conversation as plain messages, and what it weighs: what the edge reads, and what routing and holds count.

Text parts stand on lines of their own, then the calls a turn made, as `name(arguments)`. Images and files are counted
without their data. The bytes are those of everything that becomes input tokens: texts, calls, tools and schemas.
"""

from __future__ import annotations

import msgspec

from gateway.inference.conversation import (
    Conversation,
    File,
    Image,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from gateway.inference.request import Message
from gateway.wire.fields import text_size

_ENCODER = msgspec.json.Encoder()
_CALL_BYTES = 32
"""For the words around a call or a result: its id, and the names of its members."""


class Flattened(msgspec.Struct, frozen=True):
    """`images` counts files too: nobody knows what a backend makes of one."""

    messages: tuple[Message, ...]
    prompt_bytes: int
    images: int


def flatten(conversation: Conversation) -> Flattened:
    """The messages of a conversation, its bytes, its images."""
    messages = tuple(_message(turn) for turn in conversation.turns)
    parts = [part for turn in conversation.turns for part in turn.parts]
    results = [part for part in parts if isinstance(part, ToolResult)]
    parts += [inner for result in results for inner in result.parts]
    size = sum(len(turn.role) + text_size(turn.name) for turn in conversation.turns) + sum(map(_size, parts))
    for tool in conversation.tools:
        size += len(_ENCODER.encode(tool))
    if conversation.output is not None:
        size += len(_ENCODER.encode(conversation.output))
    return Flattened(messages, size, sum(isinstance(part, Image | File) for part in parts))


def schema_text(output: OutputFormat | None) -> str:
    """The JSON schema that the answer has to follow, as text; empty where none is asked for."""
    if output is None:
        return ""
    return _ENCODER.encode({"type": "object"} if output.schema is None else output.schema).decode()


def _message(turn: Turn) -> Message:
    texts = [text for part in turn.parts if (text := _text(part))]
    return Message(turn.role, "\n".join(texts))


def _text(part: Part) -> str:
    match part:
        case Text() | Refusal():
            return part.text
        case ToolCall():
            return f"{part.name}({part.arguments})"
        case ToolResult():
            return "\n".join(inner.text for inner in part.parts if isinstance(inner, Text))
        case Image() | File() | Reasoning():
            return ""


def _size(part: Part) -> int:
    match part:
        case Text() | Refusal():
            return text_size(part.text)
        case Reasoning():
            return text_size(part.text) + len(part.sealed)
        case ToolCall():
            return text_size(part.name) + text_size(part.arguments) + text_size(part.id) + _CALL_BYTES
        case ToolResult():
            return text_size(part.call_id) + _CALL_BYTES
        case File():
            # A document is charged by its pages, and nobody knows how many it has: its bytes are the bound.
            return len(part.data)
        case Image():
            return len(part.url)
