"""OpenAI's schemas as the document at `/openapi.json` describes them.

Requests are the types that the codecs read bodies with, their loose parts (messages, items, tools) spelled out as far
as the gateway looks at them; fields that are not named here are taken too. Answers have what clients rely on: a
backend's own may say more.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.wire import openai_chat_request, openai_completions, openai_embeddings, openai_search
from gateway.wire import openai_responses_request as responses

Draft = Literal["off", "frames", "reasoning"]
Role = Annotated[
    str, Meta(min_length=1, max_length=64, description="`system`, `developer`, `user`, `assistant`, `tool`")
]
Id = Annotated[str, Meta(min_length=1)]
UnixTime = Annotated[int, Meta(description="Unix time, in seconds")]
Count = Annotated[int, Meta(ge=0)]
_ItemRole = Literal["user", "assistant", "system", "developer"]
_Texts = Annotated[list[Annotated[str, Meta(max_length=100_000)]], Meta(min_length=1, max_length=2_048)]
_Input = str | _Texts
"""Lists of token numbers are taken too; no SDK sends them unasked."""


# --- what clients send ----------------------------------------------------------------------------------------


class ContentPart(msgspec.Struct):
    """A part of a message: `text` with its text, `image_url`, `input_audio`, or what else a backend knows."""

    type: str
    text: str = ""


class ChatMessage(msgspec.Struct):
    """One message of a chat."""

    role: Role
    content: str | list[ContentPart] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatRequest(openai_chat_request.Body):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]  # type: ignore[assignment]
    draft: Draft | None = None


class CompletionRequest(openai_completions.Body):
    """`POST /v1/completions`."""

    prompt: _Input


class EmbeddingRequest(openai_embeddings.Body):
    """`POST /v1/embeddings`."""

    input: _Input
    stream: Literal[False] | None = None


class SearchRequest(openai_search.Body):
    """`POST /v1/vector_stores/{id}/search`."""


class InputText(msgspec.Struct, tag_field="type", tag="input_text"):
    """A part of a message in words."""

    text: str


class InputImage(msgspec.Struct, tag_field="type", tag="input_image"):
    """An image in a message."""

    image_url: str


class MessageItem(msgspec.Struct, tag_field="type", tag="message"):
    """A message."""

    role: _ItemRole
    content: str | list[InputText | InputImage]


class CallItem(msgspec.Struct, tag_field="type", tag="function_call"):
    """A call that the model made."""

    call_id: str
    name: str
    arguments: str


class CallOutputItem(msgspec.Struct, tag_field="type", tag="function_call_output"):
    """What a called function gave."""

    call_id: str
    output: str


class ResponseFunction(msgspec.Struct):
    """A function that the model may call."""

    type: Literal["function"]
    name: Id
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ResponseRequest(responses.Body):
    """`POST /v1/responses`."""

    input: str | Annotated[list[MessageItem | CallItem | CallOutputItem], Meta(min_length=1)]  # type: ignore[assignment]
    tools: list[ResponseFunction] | None = None  # type: ignore[assignment]
    tool_choice: Literal["auto", "none", "required"] | None = None
    draft: Draft | None = None


# --- what they get --------------------------------------------------------------------------------------------


class ErrorFields(msgspec.Struct):
    """What went wrong, and which field is to blame."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class Error(msgspec.Struct):
    """An error in OpenAI's shape."""

    error: ErrorFields


class Model(msgspec.Struct):
    """A name that a client may send as `model`."""

    id: str
    object: Literal["model"]
    created: UnixTime
    owned_by: str


class ModelList(msgspec.Struct):
    """All of them."""

    object: Literal["list"]
    data: list[Model]


class Usage(msgspec.Struct):
    """Tokens of a request."""

    prompt_tokens: Count
    total_tokens: Count
    completion_tokens: Count = 0


class FunctionCall(msgspec.Struct):
    """What is called, with its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    """A call that the model made."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class AnswerMessage(msgspec.Struct):
    """What the model says."""

    role: str
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class ChatChoice(msgspec.Struct):
    """One answer."""

    index: Count
    message: AnswerMessage
    finish_reason: str | None


class DraftShown(msgspec.Struct):
    """The draft beside a final, and the verdict on it."""

    state: Literal["complete", "confirmed", "revised", "replaced", "promoted", "dropped"]
    text: str = ""
    similarity: Annotated[float, Meta(ge=0, le=1)] | None = None


class ChatCompletion(msgspec.Struct):
    """A chat's answer."""

    id: str
    object: str
    created: UnixTime
    model: str
    choices: list[ChatChoice]
    usage: Usage | None = None
    draft: DraftShown | None = None


class TextChoice(msgspec.Struct):
    """One completion."""

    index: Count
    text: str
    finish_reason: str | None


class Completion(msgspec.Struct):
    """A completion."""

    id: str
    object: str
    created: UnixTime
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None


class Embedding(msgspec.Struct):
    """One vector: numbers, or their bytes in base64."""

    object: str
    index: Count
    embedding: list[float] | str


class EmbeddingList(msgspec.Struct):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage | None = None


class FoundContent(msgspec.Struct):
    """Text of a passage."""

    type: Literal["text"]
    text: str


class FoundPassage(msgspec.Struct):
    """A passage that fits a query."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, str | float | bool]
    content: list[FoundContent]


class SearchPage(msgspec.Struct):
    """What a search found; there is never a second page."""

    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[FoundPassage]
    has_more: bool
    next_page: str | None


class Response(msgspec.Struct):
    """A response and its output."""

    id: str
    object: Literal["response"]
    created_at: UnixTime
    status: str
    model: str
    output: list[dict[str, Any]]
    store: bool
    error: dict[str, Any] | None = None
    incomplete_details: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


class Deleted(msgspec.Struct):
    """Something is gone."""

    id: str
    object: str
    deleted: bool
