"""The messages of a Messages request, as turns.

A user's message may hold results of tools beside its own content: those become turns of role `tool`, in their order.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import InvalidRequest
from gateway.inference.conversation import (
    File,
    Image,
    Part,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from gateway.wire.fields import list_of, object_of, text_of, wrong_type

_ENCODER = msgspec.json.Encoder()
_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}


class Turns:
    """What was found in the messages so far. `native_only`: paths of what no other schema has a word for."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.native_only: list[str] = []

    def system(self, system: str | list[dict[str, Any]] | None) -> None:
        """Take in the system prompt: a text, or blocks of text."""
        if isinstance(system, str):
            parts: list[Part] = [Text(system)] if system else []
        else:
            parts = [self._text(block, f"system[{index}]") for index, block in enumerate(system or ())]
        if parts:
            self.turns.append(Turn("system", tuple(parts)))

    def message(self, message: dict[str, Any], path: str) -> None:
        """Take in the next message.

        Raises:
            InvalidRequest: a field has a wrong type; `param` is its path, such as `messages[1].role`.
        """
        given = message.get("role")
        role = _ROLES.get(given) if isinstance(given, str) else None
        if role is None:
            raise wrong_type(f"{path}.role", "'user' or 'assistant'", given)
        content = message.get("content")
        if isinstance(content, str):
            self.turns.append(Turn(role, (Text(content),)))
            return
        if not isinstance(content, list):
            raise wrong_type(f"{path}.content", "a string or an array of content blocks", content)
        parts: list[Part] = []
        for index, block in enumerate(content):
            where = f"{path}.content[{index}]"
            part = self._part(object_of(block, where), where)
            if part is None:
                continue
            if isinstance(part, ToolResult):
                self._say(role, parts)
                self.turns.append(Turn("tool", (part,)))
            else:
                parts.append(part)
        self._say(role, parts)

    def _say(self, role: Role, parts: list[Part]) -> None:
        if parts:
            self.turns.append(Turn(role, tuple(parts)))
            parts.clear()

    def _part(self, block: dict[str, Any], path: str) -> Part | None:
        """The part in a block; None for one that has no canonical word."""
        kind = text_of(block, "type", path)
        match kind:
            case "text":
                return self._text(block, path)
            case "image" | "document":
                return self._source(block, path)
            case "tool_use":
                arguments = object_of(block.get("input"), f"{path}.input")
                return ToolCall(
                    text_of(block, "id", path), text_of(block, "name", path), _ENCODER.encode(arguments).decode()
                )
            case "tool_result":
                return self._result(block, path)
            case "thinking":
                thinking = text_of(block, "thinking", path)
                return Reasoning(text=thinking, signature=text_of(block, "signature", path, default=""))
            case "redacted_thinking":
                return Reasoning(sealed=text_of(block, "data", path))
            case _:
                self.native_only.append(f"{path}.type")
                return None

    def _text(self, block: dict[str, Any], path: str) -> Text:
        if block.get("type") != "text":
            raise InvalidRequest(f"Invalid value for '{path}.type': use 'text'", param=f"{path}.type")
        return Text(text_of(block, "text", path))

    def _source(self, block: dict[str, Any], path: str) -> Image | File | None:
        source = object_of(block.get("source"), f"{path}.source")
        is_image = block["type"] == "image"
        self.native_only += [
            f"{path}.{key}" for key in ("transformations", "citations", "context") if block.get(key) is not None
        ]
        name = text_of(block, "title", path, default="")
        match source.get("type"):
            case "base64":
                data = text_of(source, "data", f"{path}.source")
                kind = text_of(source, "media_type", f"{path}.source")
                return Image(data=data, media_type=kind) if is_image else File(data=data, media_type=kind, name=name)
            case "url":
                url = text_of(source, "url", f"{path}.source")
                return Image(url=url) if is_image else File(url=url, name=name)
            case _:
                self.native_only.append(f"{path}.source")
                return None

    def _result(self, block: dict[str, Any], path: str) -> ToolResult:
        content = block.get("content")
        parts: list[Text | Image | File] = []
        if isinstance(content, str):
            parts.append(Text(content))
        elif content is not None:
            for index, inner in enumerate(list_of(content, f"{path}.content")):
                where = f"{path}.content[{index}]"
                part = self._part(object_of(inner, where), where)
                if isinstance(part, Text | Image | File):
                    parts.append(part)
                elif part is not None:
                    raise InvalidRequest(f"'{where}' cannot stand in the result of a tool", param=f"{where}.type")
        call_id = text_of(block, "tool_use_id", path)
        return ToolResult(call_id=call_id, parts=tuple(parts), is_error=block.get("is_error") is True)
