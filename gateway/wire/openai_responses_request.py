"""A Responses request: from a client's body to the canonical request, with its conversation in full.

Earlier turns are not in the body: it names the response that they led to, and `continued` puts them in front. What no
backend schema has a word for (hosted tools, stored prompts) is collected in `native_only`. Left out because
they do not change an answer: `include` of things that are not there, service tier, limits of hosted tools.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.errors import InvalidRequest
from gateway.inference.conversation import Conversation, OutputFormat, Text, Tool, ToolChoice, Turn
from gateway.inference.request import InferenceRequest, Sampling
from gateway.wire.fields import RAW_FIELDS, draft_wish, object_of, refuse_lookalikes, text_of, typed
from gateway.wire.flattened import flatten, schema_text
from gateway.wire.json_body import read_object
from gateway.wire.openai_responses_items import Items

_HINTS = frozenset(
    {
        "include",
        "max_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "stream_options",
    }
)
_TOOL_FIELDS = frozenset({"type", "name", "description", "parameters", "strict"})


class Body(msgspec.Struct):
    """What the gateway reads of a body. Null stands for "not given" everywhere, as SDKs send it."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    previous_response_id: Annotated[str, Meta(max_length=256)] | None = None
    user: str | None = None
    background: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None


_READ = frozenset(Body.__struct_fields__)
_KNOWN = _READ | _HINTS | {"draft"}


def decode_request(body: bytes) -> InferenceRequest:
    """The request in a client's body, without the turns before it.

    Raises:
        InvalidRequest: not a JSON object, or a field is wrong; `param` is its path where there is one.
    """
    value = read_object(body)
    refuse_lookalikes(value, _KNOWN)
    wish = draft_wish(value.get("draft"))
    read = typed(value, Body)
    fields = RAW_FIELDS.decode(body)
    fields.pop("draft", None)
    native_only = [key for key, given in value.items() if key not in _KNOWN and given is not None]
    if read.background and read.store is False:
        raise InvalidRequest("A response in the background has to be stored: leave 'store' out", param="store")
    if read.truncation == "auto":
        native_only.append("truncation")
    conversation = _conversation(read, native_only)
    flat = flatten(conversation)
    return InferenceRequest(
        surface="responses",
        model=read.model,
        messages=flat.messages,
        fields=fields,
        stream=bool(read.stream),
        include_usage=True,
        max_tokens=read.max_output_tokens,
        max_tokens_field="max_output_tokens",
        sampling=Sampling(temperature=read.temperature, top_p=read.top_p),
        tools=bool(read.tools),
        json_output=conversation.output is not None,
        json_schema=schema_text(conversation.output),
        images=flat.images,
        draft=wish,
        metadata=read.metadata or {},
        prompt_bytes=flat.prompt_bytes,
        conversation=conversation,
        native_only=tuple(native_only),
        shows_reasoning=True,
    )


def previous_of(request: InferenceRequest) -> str | None:
    """The id of the response that this request goes on from."""
    given = request.fields.get("previous_response_id")
    return None if given is None else msgspec.json.decode(given, type=str | None)


def is_kept(request: InferenceRequest) -> bool:
    """The response is to be kept, so that later ones can go on from it; so it is unless the client says no."""
    given = request.fields.get("store")
    return given is None or bytes(given) != b"false"


def is_background(request: InferenceRequest) -> bool:
    """The client does not wait for the response, but asks for it later."""
    given = request.fields.get("background")
    return given is not None and bytes(given) == b"true"


def turns_of(request: InferenceRequest) -> tuple[Turn, ...]:
    """The turns that the next response has to know: all but the instructions, which hold for one response."""
    if request.conversation is None:
        return ()
    turns = request.conversation.turns
    return turns[1:] if _has_instructions(request) else turns


def continued(request: InferenceRequest, before: tuple[Turn, ...]) -> InferenceRequest:
    """The request with the turns before it."""
    if request.conversation is None:
        return request
    own = turns_of(request)
    instructions = request.conversation.turns[: len(request.conversation.turns) - len(own)]
    conversation = msgspec.structs.replace(request.conversation, turns=instructions + before + own)
    flat = flatten(conversation)
    return msgspec.structs.replace(
        request,
        conversation=conversation,
        messages=flat.messages,
        prompt_bytes=flat.prompt_bytes,
        images=flat.images,
    )


def _has_instructions(request: InferenceRequest) -> bool:
    given = request.fields.get("instructions")
    return given is not None and bytes(given) not in {b"null", b'""'}


def _conversation(read: Body, native_only: list[str]) -> Conversation:
    items = Items()
    if isinstance(read.input, str):
        items.turns.append(Turn("user", (Text(read.input),)))
    else:
        for index, item in enumerate(read.input):
            items.add(item, f"input[{index}]")
    native_only += items.native_only
    instructions = (Turn("system", (Text(read.instructions),)),) if read.instructions else ()
    text, reasoning = read.text or {}, read.reasoning or {}
    tools = [_tool(given, index, native_only) for index, given in enumerate(read.tools or ())]
    return Conversation(
        turns=(*instructions, *items.turns),
        tools=tuple(tool for tool in tools if tool is not None),
        tool_choice=_tool_choice(read.tool_choice, native_only),
        parallel_tool_calls=read.parallel_tool_calls,
        output=_output(text.get("format")),
        effort=text_of(reasoning, "effort", "reasoning", default="") or None,
        verbosity=text_of(text, "verbosity", "text", default="") or None,
        user=read.user,
    )


def _tool(given: dict[str, Any], index: int, native_only: list[str]) -> Tool | None:
    """A function of the client's own; None for a tool that the provider runs."""
    path = f"tools[{index}]"
    if given.get("type") != "function":
        native_only.append(path)
        return None
    native_only += [f"{path}.{key}" for key, value in given.items() if value and key not in _TOOL_FIELDS]
    strict, parameters = given.get("strict"), given.get("parameters")
    return Tool(
        name=text_of(given, "name", path),
        description=text_of(given, "description", path, default="") or None,
        parameters=None if parameters is None else object_of(parameters, f"{path}.parameters"),
        strict=strict if isinstance(strict, bool) else None,
    )


def _tool_choice(choice: str | dict[str, Any] | None, native_only: list[str]) -> ToolChoice | None:
    match choice:
        case None:
            return None
        case "auto" | "none" | "required":
            return ToolChoice(choice)
        case dict() if choice.get("type") == "function":
            return ToolChoice("named", text_of(choice, "name", "tool_choice"))
        case dict():
            native_only.append("tool_choice")
            return None
        case _:
            message = "Invalid value for 'tool_choice': use 'auto', 'none', 'required' or a function"
            raise InvalidRequest(message, param="tool_choice")


def _output(given: object) -> OutputFormat | None:
    if given is None:
        return None
    described = object_of(given, "text.format")
    match described.get("type"):
        case "text":
            return None
        case "json_object":
            return OutputFormat()
        case "json_schema":
            strict = described.get("strict")
            return OutputFormat(
                schema=object_of(described.get("schema"), "text.format.schema"),
                name=text_of(described, "name", "text.format"),
                description=text_of(described, "description", "text.format", default="") or None,
                strict=strict if isinstance(strict, bool) else None,
            )
        case _:
            message = "Invalid value for 'text.format.type': use 'text', 'json_object' or 'json_schema'"
            raise InvalidRequest(message, param="text.format.type")
