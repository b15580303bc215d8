"""The messages of a chat request, flattened to text and counted.

Each message becomes one `Message`: its text parts on lines of their own, then the calls it made, as `name(arguments)`.
What is no text is counted: images and audio without their data, everything else with the bytes of its JSON, because
nobody knows what a backend makes of it. JSON is never shorter than the text it stands for, so counts are upper bounds.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.inference.request import Message
from gateway.wire.fields import refuse_lookalikes, text_size, wrong_type

_ENCODER = msgspec.json.Encoder()
_PLAIN_KEYS = frozenset({"role", "content"})
_READ_KEYS = frozenset({"role", "content", "tool_calls", "function_call", "refusal", "name", "tool_call_id"})
_PART_KEYS = frozenset({"type", "text", "refusal", "image_url", "input_audio", "file"})
_ROLE_LIMIT_BYTES = 64


class Conversation:
    """What was found in the messages so far."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.prompt_bytes = 0
        self.images = 0
        self.audio = 0

    def add(self, message: dict[str, Any]) -> None:
        """Take in the next message.

        Raises:
            InvalidRequest: a field has a wrong type; `param` is its path, such as `messages[1].role`.
        """
        path = f"messages[{len(self.messages)}]"
        role = message.get("role")
        if not isinstance(role, str) or not 0 < len(role) <= _ROLE_LIMIT_BYTES:
            raise wrong_type(f"{path}.role", "a role such as 'user'", role)
        content = message.get("content")
        if isinstance(content, str):
            text = content
        elif content is None:
            text = ""
        elif isinstance(content, list):
            text = self._parts(content, f"{path}.content")
        else:
            raise wrong_type(f"{path}.content", "a string or an array of content parts", content)
        self.prompt_bytes += text_size(role) + text_size(text)
        if not message.keys() <= _PLAIN_KEYS:
            text = self._extras(message, text, path)
        self.messages.append(Message(role, text))

    def _parts(self, parts: list[object], path: str) -> str:
        texts: list[str] = []
        for index, part in enumerate(parts):
            where = f"{path}[{index}]"
            if not isinstance(part, dict):
                raise wrong_type(where, "an object", part)
            refuse_lookalikes(part, _PART_KEYS, where)
            kind = part.get("type")
            if not isinstance(kind, str):
                raise wrong_type(f"{where}.type", "a string", kind)
            if kind == "image_url":
                self.images += 1
            elif kind == "input_audio":
                self.audio += 1
            else:
                self._text_part(part, kind, where, texts)
        return "\n".join(texts)

    def _text_part(self, part: dict[str, Any], kind: str, where: str, texts: list[str]) -> None:
        """A part with text; or one that the gateway cannot read (a file, a video) and counts as an image."""
        field = "refusal" if kind == "refusal" else "text"
        text = part.get(field)
        if isinstance(text, str):
            texts.append(text)
        elif kind == field or field in part:
            raise wrong_type(f"{where}.{field}", "a string", text)
        else:
            self.images += 1
            self.prompt_bytes += len(_ENCODER.encode(part))

    def _extras(self, message: dict[str, Any], text: str, path: str) -> str:
        """Count the fields beside role and content, and add the calls among them to the text."""
        refuse_lookalikes(message, _READ_KEYS, path)
        extras = {key: value for key, value in message.items() if key not in _PLAIN_KEYS and value is not None}
        if not extras:
            return text
        self.prompt_bytes += len(_ENCODER.encode(extras))
        texts = [text] if text else []
        if isinstance(refusal := extras.get("refusal"), str):
            texts.append(refusal)
        calls = extras.get("tool_calls", [])
        if not isinstance(calls, list):
            raise wrong_type(f"{path}.tool_calls", "an array", calls)
        for index, call in enumerate(calls):
            if not isinstance(call, dict):
                raise wrong_type(f"{path}.tool_calls[{index}]", "an object", call)
            # A custom tool's call has its name and input under `custom`.
            texts.append(_call_text(call.get("function") or call.get("custom")))
        if "function_call" in extras:
            texts.append(_call_text(extras["function_call"]))
        return "\n".join(texts)


def _call_text(function: object) -> str:
    if not isinstance(function, dict):
        return ""
    arguments = function.get("arguments", function.get("input", ""))
    if not isinstance(arguments, str):
        arguments = _ENCODER.encode(arguments).decode()
    return f"{function.get('name', '')}({arguments})"
