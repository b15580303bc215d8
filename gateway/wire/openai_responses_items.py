"""The input of a Responses request, as turns.

What the assistant said, thought and called stands in items of its own there; as one turn it is what other schemas have
as one message. Results of tools are turns of role `tool`.
"""

from __future__ import annotations

from typing import Any

from gateway.errors import InvalidRequest
from gateway.inference.conversation import (
    File,
    Image,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from gateway.wire.fields import data_of, list_of, object_of, text_of, wrong_type

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "developer"}
_TEXT_PARTS = frozenset({"input_text", "output_text", "text", "reasoning_text", "summary_text"})


class Items:
    """What was found in the input so far. `native_only`: paths of what no other schema has a word for."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.native_only: list[str] = []

    def add(self, item: dict[str, Any], path: str) -> None:
        """Take in the next item.

        Raises:
            InvalidRequest: a field has a wrong type; `param` is its path, such as `input[1].role`.
        """
        match item.get("type", "message"):
            case "message":
                self._message(item, path)
            case "function_call":
                call = ToolCall(
                    text_of(item, "call_id", path), text_of(item, "name", path), text_of(item, "arguments", path)
                )
                self._assistant((call,))
            case "function_call_output":
                result = ToolResult(call_id=text_of(item, "call_id", path), parts=self._output(item, path))
                self.turns.append(Turn("tool", (result,)))
            case "reasoning":
                self._assistant((self._reasoning(item, path),))
            case _:
                self.native_only.append(f"{path}.type")

    def _message(self, item: dict[str, Any], path: str) -> None:
        given = item.get("role")
        role = _ROLES.get(given) if isinstance(given, str) else None
        if role is None:
            raise wrong_type(f"{path}.role", "'user', 'assistant', 'system' or 'developer'", given)
        content = item.get("content")
        if isinstance(content, str):
            parts: tuple[Part, ...] = (Text(content),)
        elif isinstance(content, list):
            parts = self._parts(content, f"{path}.content")
        else:
            raise wrong_type(f"{path}.content", "a string or an array of content parts", content)
        if role == "assistant":
            self._assistant(parts)
        else:
            self.turns.append(Turn(role, parts))

    def _assistant(self, parts: tuple[Part, ...]) -> None:
        if self.turns and self.turns[-1].role == "assistant":
            parts = self.turns.pop().parts + parts
        self.turns.append(Turn("assistant", parts))

    def _parts(self, content: list[object], path: str) -> tuple[Part, ...]:
        found = [
            self._part(object_of(part, f"{path}[{index}]"), f"{path}[{index}]") for index, part in enumerate(content)
        ]
        return tuple(part for part in found if part is not None)

    def _part(self, part: dict[str, Any], path: str) -> Part | None:
        """The part; None for one that has no canonical word."""
        kind = text_of(part, "type", path)
        if kind in _TEXT_PARTS:
            return Text(text_of(part, "text", path))
        match kind:
            case "refusal":
                return Refusal(text_of(part, "refusal", path))
            case "input_image" if part.get("image_url") is not None:
                url = text_of(part, "image_url", path)
                detail = text_of(part, "detail", path, default="") or None
                media_type, data = data_of(url)
                return Image(url="" if data else url, data=data, media_type=media_type, detail=detail)
            case "input_file" if part.get("file_url") is not None:
                return File(url=text_of(part, "file_url", path), name=text_of(part, "filename", path, default=""))
            case "input_file" if part.get("file_data") is not None:
                media_type, data = data_of(text_of(part, "file_data", path))
                if not data:
                    message = f"'{path}.file_data' must be a data URL, as in data:application/pdf;base64,…"
                    raise InvalidRequest(message, param=f"{path}.file_data")
                return File(data=data, media_type=media_type, name=text_of(part, "filename", path, default=""))
            case _:
                self.native_only.append(path)
                return None

    def _output(self, item: dict[str, Any], path: str) -> tuple[Text | Image | File, ...]:
        output = item.get("output")
        if isinstance(output, str):
            return (Text(output),)
        parts = self._parts(list_of(output, f"{path}.output"), f"{path}.output")
        return tuple(part for part in parts if isinstance(part, Text | Image | File))

    def _reasoning(self, item: dict[str, Any], path: str) -> Reasoning:
        texts: list[str] = []
        for key in ("content", "summary"):
            parts = item.get(key)
            if parts and not texts:
                found = self._parts(list_of(parts, f"{path}.{key}"), f"{path}.{key}")
                texts = [part.text for part in found if isinstance(part, Text)]
        return Reasoning(text="\n".join(texts), sealed=text_of(item, "encrypted_content", path, default=""))
