"""A chat request's conversation, read out of its fields: only for backends that speak another schema.

The body was checked when it came in; here everything in it is given a canonical word, or its field's name is noted.
Left out because they do not change an answer: what OpenAI keeps (`store`, `metadata`), hints for its caches and tiers.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.inference.conversation import (
    Conversation,
    File,
    Image,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from gateway.inference.request import InferenceRequest
from gateway.wire.fields import data_of, list_of, object_of, text_of

_READ = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "temperature"),
        *("top_p", "top_k", "stop", "tools", "tool_choice", "parallel_tool_calls", "response_format"),
        *("reasoning_effort", "verbosity", "user"),
    }
)
_HINTS = frozenset(
    {"metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"}
)
_ROLES: dict[str, Role] = {"system": "system", "developer": "developer", "user": "user", "assistant": "assistant"}


def with_conversation(request: InferenceRequest) -> InferenceRequest:
    """The request with its conversation in full; as it is, where it has one already.

    Raises:
        InvalidRequest: a part of it has a wrong type; `param` is its path.
    """
    if request.conversation is not None or request.surface != "chat":
        return request
    value = {name: msgspec.json.decode(raw) for name, raw in request.fields.items()}
    reader = _Reader()
    conversation = reader.conversation(value)
    native_only = [name for name, given in value.items() if name not in _READ | _HINTS and given not in _NOTHING]
    if request.n > 1:
        native_only.append("n")
    return msgspec.structs.replace(
        request, conversation=conversation, native_only=tuple(native_only + reader.native_only), shows_reasoning=True
    )


_NOTHING: tuple[object, ...] = (None, False, 0, {}, [])
"""Values that ask for nothing."""


class _Reader:
    def __init__(self) -> None:
        self.native_only: list[str] = []

    def conversation(self, value: dict[str, Any]) -> Conversation:
        tools = [self._tool(given, index) for index, given in enumerate(value.get("tools") or ())]
        one = value.get("parallel_tool_calls")
        effort, verbosity, user = (value.get(name) for name in ("reasoning_effort", "verbosity", "user"))
        turns = [self._turn(message, f"messages[{index}]") for index, message in enumerate(value["messages"])]
        return Conversation(
            turns=tuple(turns),
            tools=tuple(tool for tool in tools if tool is not None),
            tool_choice=self._tool_choice(value.get("tool_choice")),
            parallel_tool_calls=one if isinstance(one, bool) else None,
            output=self._output(value.get("response_format")),
            effort=effort if isinstance(effort, str) else None,
            verbosity=verbosity if isinstance(verbosity, str) else None,
            user=user if isinstance(user, str) else None,
        )

    def _turn(self, message: dict[str, Any], path: str) -> Turn:
        given = message["role"]
        name = text_of(message, "name", path, default="")
        parts = self._content(message.get("content"), f"{path}.content")
        if given == "tool":
            texts = tuple(part for part in parts if isinstance(part, Text | Image | File))
            return Turn("tool", (ToolResult(call_id=text_of(message, "tool_call_id", path), parts=texts),))
        if given not in _ROLES:
            self.native_only.append(f"{path}.role")
            return Turn("user", parts)
        reasoning = message.get("reasoning_content")
        if isinstance(reasoning, str) and reasoning:
            parts = (Reasoning(text=reasoning), *parts)
        if isinstance(refusal := message.get("refusal"), str) and refusal:
            parts = (*parts, Refusal(refusal))
        calls = list_of(message.get("tool_calls") or [], f"{path}.tool_calls")
        parts += tuple(self._call(call, f"{path}.tool_calls[{index}]") for index, call in enumerate(calls))
        self.native_only += [f"{path}.{key}" for key in ("function_call", "audio") if message.get(key)]
        return Turn(_ROLES[given], parts, name)

    def _content(self, content: object, path: str) -> tuple[Part, ...]:
        if isinstance(content, str):
            return (Text(content),) if content else ()
        if content is None:
            return ()
        parts = [
            self._part(object_of(part, f"{path}[{index}]"), f"{path}[{index}]")
            for index, part in enumerate(list_of(content, path))
        ]
        return tuple(part for part in parts if part is not None)

    def _part(self, part: dict[str, Any], path: str) -> Part | None:
        match part.get("type"):
            case "text":
                return Text(text_of(part, "text", path))
            case "refusal":
                return Refusal(text_of(part, "refusal", path))
            case "image_url":
                image = object_of(part.get("image_url"), f"{path}.image_url")
                url = text_of(image, "url", f"{path}.image_url")
                media_type, data = data_of(url)
                detail = text_of(image, "detail", f"{path}.image_url", default="") or None
                return Image(url="" if data else url, data=data, media_type=media_type, detail=detail)
            case "file" if isinstance(file := part.get("file"), dict) and file.get("file_data"):
                media_type, data = data_of(text_of(file, "file_data", f"{path}.file"))
                return File(data=data, media_type=media_type, name=text_of(file, "filename", path, default=""))
            case _:
                self.native_only.append(path)
                return None

    def _call(self, call: object, path: str) -> ToolCall:
        given = object_of(call, path)
        if given.get("function") is None:
            self.native_only.append(path)
            return ToolCall("", "", "{}")
        function = object_of(given["function"], f"{path}.function")
        name, arguments = (text_of(function, key, f"{path}.function") for key in ("name", "arguments"))
        return ToolCall(text_of(given, "id", path), name, arguments)

    def _tool(self, given: dict[str, Any], index: int) -> Tool | None:
        path = f"tools[{index}]"
        if given.get("type") != "function":
            self.native_only.append(path)
            return None
        function = object_of(given.get("function"), f"{path}.function")
        parameters, strict = function.get("parameters"), function.get("strict")
        return Tool(
            name=text_of(function, "name", f"{path}.function"),
            description=text_of(function, "description", path, default="") or None,
            parameters=None if parameters is None else object_of(parameters, f"{path}.function.parameters"),
            strict=strict if isinstance(strict, bool) else None,
        )

    def _tool_choice(self, choice: object) -> ToolChoice | None:
        match choice:
            case None:
                return None
            case "auto" | "none" | "required":
                return ToolChoice(choice)
            case {"type": "function", "function": {"name": str(name)}}:
                return ToolChoice("named", name)
            case _:
                self.native_only.append("tool_choice")
                return None

    def _output(self, given: object) -> OutputFormat | None:
        match given:
            case None | {"type": "text"}:
                return None
            case {"type": "json_object"}:
                return OutputFormat()
            case {"type": "json_schema", "json_schema": {"schema": dict(schema), **more}}:
                description, strict = more.get("description"), more.get("strict")
                name = more.get("name")
                return OutputFormat(
                    schema=schema,
                    name=name if isinstance(name, str) else "",
                    description=description if isinstance(description, str) else None,
                    strict=strict if isinstance(strict, bool) else None,
                )
            case _:
                self.native_only.append("response_format")
                return None
