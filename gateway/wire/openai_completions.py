"""OpenAI's legacy completions, both directions.

They are the chat API with a prompt in place of messages and a text in place of a message, so only that is in here. One
prompt in words can be served by anything that chats; several, or tokens, need a backend that has this API.
Drafts are not made: nothing that reads this API knows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.errors import InvalidRequest
from gateway.inference.conversation import Conversation, Text, Turn
from gateway.inference.events import TokenLogprob, WholeAnswer
from gateway.inference.request import DraftWish, InferenceRequest, Message, Sampling
from gateway.wire.collected import Collected
from gateway.wire.fields import RAW_FIELDS, refuse_lookalikes, text_size, typed
from gateway.wire.json_body import read_object
from gateway.wire.openai_chat_answer import Answer, AnswerChoice, Content, decode_answer
from gateway.wire.openai_chat_encode import AnswerEncoder as ChatAnswerEncoder
from gateway.wire.openai_chat_encode import StreamEncoder as ChatStreamEncoder
from gateway.wire.openai_chat_request import StreamOptions
from gateway.wire.openai_chat_stream import Choice, Chunk, StreamDecoder
from gateway.wire.openai_logprobs import legacy_logprobs

DEFAULT_MAX_TOKENS = 16
"""What this API gives when a client names no limit."""

Tokens = list[Annotated[int, Meta(ge=0)]]
Prompt = str | list[Any]


class Body(msgspec.Struct):
    """What the gateway reads of a body. Null stands for "not given" everywhere, as SDKs send it."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    prompt: str | Annotated[list[Any], Meta(min_length=1, max_length=2048)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None


_KNOWN = frozenset(Body.__struct_fields__) | {"draft"}
_OWN = ("logprobs", "echo", "suffix", "best_of")
"""Fields that chat has no word for."""


def decode_request(body: bytes) -> InferenceRequest:
    """The request in a client's body.

    Raises:
        InvalidRequest: not a JSON object, or a field is wrong; `param` is its path where there is one.
    """
    value = read_object(body)
    refuse_lookalikes(value, _KNOWN)
    read = typed(value, Body)
    fields = RAW_FIELDS.decode(body)
    fields.pop("draft", None)
    prompts, size = read_prompts(read.prompt, "prompt")
    native_only = [name for name in _OWN if getattr(read, name)]
    if len(prompts) != 1 or not isinstance(prompts[0], str):
        native_only.append("prompt")
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    stop = read.stop or ()
    limit = DEFAULT_MAX_TOKENS if read.max_tokens is None else max(1, read.max_tokens)
    return InferenceRequest(
        surface="completions",
        model=read.model,
        messages=tuple(Message("user", text) for text in texts),
        fields=fields,
        stream=bool(read.stream),
        include_usage=read.stream_options is not None and bool(read.stream_options.include_usage),
        max_tokens=limit,
        max_tokens_field="max_tokens",
        n=len(prompts) * max(read.n or 1, read.best_of or 1),
        sampling=Sampling(
            temperature=read.temperature,
            top_p=read.top_p,
            seed=read.seed,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            presence_penalty=read.presence_penalty,
            frequency_penalty=read.frequency_penalty,
            top_logprobs=read.logprobs,
        ),
        logprobs=read.logprobs is not None,
        draft=DraftWish.OFF,
        prompt_bytes=size + text_size(read.suffix or ""),
        conversation=Conversation(turns=tuple(Turn("user", (Text(text),)) for text in texts)),
        native_only=tuple(native_only),
    )


def read_prompts(given: Prompt, field: str) -> tuple[list[str | list[int]], int]:
    """The prompts in a text, a list of texts, tokens, or a list of those; and the most tokens that they have together.

    Raises:
        InvalidRequest: it is none of them.
    """
    if isinstance(given, str):
        return [given], text_size(given)
    if all(type(item) is int for item in given):
        return [given], len(given)
    prompts: list[str | list[int]] = []
    size = 0
    for index, item in enumerate(given):
        is_tokens = isinstance(item, list) and bool(item) and all(type(token) is int for token in item)
        if not isinstance(item, str) and not is_tokens:
            path = f"{field}[{index}]"
            raise InvalidRequest(f"Invalid value for '{path}': expected a text, or a list of tokens", param=path)
        prompts.append(item)
        size += text_size(item) if isinstance(item, str) else len(item)
    return prompts, size


# --- what a backend answers -----------------------------------------------------------------------------------


class _TextChoice(msgspec.Struct, gc=False):
    text: Any = None
    index: int = 0
    finish_reason: str | None = None


class _TextChunk(msgspec.Struct, gc=False):
    choices: list[_TextChoice] | None = None
    usage: Any = None
    error: Any = None
    object: Any = None


_TEXT_CHUNK = msgspec.json.Decoder(_TextChunk)


def stream_decoder(*, deployment: str, n: int = 1) -> StreamDecoder:
    """What reads a streamed completion."""
    return StreamDecoder(deployment=deployment, n=n, read=_read_chunk)


def decode_completion(body: bytes, *, deployment: str) -> WholeAnswer:
    """The completion in a backend's body; raises what `decode_answer` raises."""
    return decode_answer(body, deployment=deployment, read=_read_answer)


def _read_chunk(payload: bytes) -> Chunk:
    chunk = _TEXT_CHUNK.decode(payload)
    choices = [
        Choice(choice.index, Content(content=choice.text), choice.finish_reason) for choice in chunk.choices or ()
    ]
    return Chunk(choices, chunk.usage, chunk.error, chunk.object)


def _read_answer(body: bytes) -> Answer:
    chunk = _TEXT_CHUNK.decode(body)
    choices = [
        AnswerChoice(Content(content=choice.text), choice.finish_reason, choice.index) for choice in chunk.choices or ()
    ]
    return Answer(choices, chunk.usage, chunk.error, chunk.object)


# --- what a client gets, where the backend does not speak this schema --------------------------------------------


class StreamEncoder(ChatStreamEncoder):
    """Writes one streamed completion."""

    kind = "text_completion"

    def __init__(
        self, *, request: InferenceRequest, response_id: str, created: int, model: str, wish: DraftWish
    ) -> None:
        super().__init__(request=request, response_id=response_id, created=created, model=model, wish=wish)
        self._characters = 0
        """Of the text that went out."""

    def _choice(self, delta: dict[str, Any], finish_reason: str | None, told: Sequence[TokenLogprob]) -> dict[str, Any]:
        text = delta.get("content") or ""
        logprobs = legacy_logprobs(told, self._characters)
        self._characters += len(text)
        return {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish_reason}


class AnswerEncoder(ChatAnswerEncoder):
    """Collects one completion that is not streamed, and writes it."""

    kind = "text_completion"

    def _choice(self, collected: Collected, finish_reason: str) -> dict[str, Any]:
        logprobs = legacy_logprobs(collected.logprobs, 0)
        return {"text": collected.text(Text), "index": 0, "logprobs": logprobs, "finish_reason": finish_reason}
