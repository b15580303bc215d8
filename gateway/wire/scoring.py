"""How vLLM and SGLang are asked for the log-probabilities of a draft, and what they answer.

vLLM: a chat request whose last message is the draft, to be continued (`continue_final_message`), with
`prompt_logprobs` and one token to write. The answer has an entry for each token of the prompt, the first without one;
the draft's are those at the end whose texts make up the draft.

SGLang: `/tokenize` turns prompt and draft into tokens, so that it is known where the draft begins; `/generate` takes
the tokens with `return_logprob` and `logprob_start_len`, and writes none. An answer's first entry has no
log-probability: so it starts one token early.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.inference.deployment import Deployment
from gateway.inference.request import InferenceRequest
from gateway.inference.usage import Usage
from gateway.wire.openai_chat_answer import read_usage

_ENCODER = msgspec.json.Encoder()
_SPACE = re.compile(r"\s+")
Tokens = list[Annotated[int, Meta(ge=0)]]


class Unreadable(ValueError):
    """It is no answer to what was asked; the message says what is wrong."""


# --- vLLM -----------------------------------------------------------------------------------------------------


def vllm_request(request: InferenceRequest, deployment: Deployment, text: str) -> bytes:
    """The body for `/v1/chat/completions`."""
    messages = [{"role": message.role, "content": message.text} for message in request.messages]
    return _ENCODER.encode(
        {
            "model": deployment.model,
            "messages": [*messages, {"role": "assistant", "content": text}],
            "add_generation_prompt": False,
            "continue_final_message": True,
            "prompt_logprobs": 0,
            "max_tokens": 1,
            "temperature": 0,
            "stream": False,
        }
    )


class _Logprob(msgspec.Struct):
    logprob: float
    decoded_token: str | None = None


class _VllmAnswer(msgspec.Struct):
    prompt_logprobs: list[dict[str, _Logprob] | None] | None = None
    usage: Any = None


_VLLM = msgspec.json.Decoder(_VllmAnswer)


def vllm_usage(body: bytes) -> Usage | None:
    """What reading cost. Raises Unreadable."""
    return read_usage(_read(_VLLM, body).usage)


def vllm_logprobs(body: bytes, text: str) -> tuple[float, ...]:
    """Of the draft's tokens, in order; white space is not compared, because tokenizers lose some. Raises Unreadable."""
    left = _SPACE.sub("", text)
    found: list[float] = []
    for entry in reversed(_read(_VLLM, body).prompt_logprobs or ()):
        if not left:
            break
        chosen = next(iter(entry.values()), None) if entry else None
        if chosen is None or chosen.decoded_token is None:
            raise Unreadable("a token of the draft has no log-probability")
        token = _SPACE.sub("", chosen.decoded_token)
        if not left.endswith(token):
            raise Unreadable("the prompt does not end with the draft")
        left = left[: len(left) - len(token)]
        found.append(chosen.logprob)
    if left:
        raise Unreadable("there are fewer log-probabilities than the draft has tokens")
    return _finite(found[::-1])


# --- SGLang ---------------------------------------------------------------------------------------------------


def tokenize_request(deployment: Deployment, prompt: str, text: str) -> bytes:
    """The body for `/v1/tokenize`: prompt and draft apart, the template has its own special tokens."""
    return _ENCODER.encode({"model": deployment.model, "prompt": [prompt, text], "add_special_tokens": False})


class _Tokenized(msgspec.Struct):
    tokens: Annotated[list[Tokens], Meta(min_length=2, max_length=2)]


_TOKENIZED = msgspec.json.Decoder(_Tokenized)


def tokenized(body: bytes) -> tuple[list[int], list[int]]:
    """The tokens of prompt and draft. Raises Unreadable."""
    prompt, text = _read(_TOKENIZED, body).tokens
    if not prompt or not text:
        raise Unreadable("it makes no tokens of a text that has some")
    return prompt, text


def sglang_request(prompt: list[int], text: list[int]) -> bytes:
    """The body for `/generate`."""
    return _ENCODER.encode(
        {
            "input_ids": prompt + text,
            "sampling_params": {"temperature": 0, "max_new_tokens": 0},
            "return_logprob": True,
            "logprob_start_len": len(prompt) - 1,
            "stream": False,
        }
    )


class _Meta(msgspec.Struct):
    prompt_tokens: Annotated[int, Meta(ge=0)] = 0
    completion_tokens: Annotated[int, Meta(ge=0)] = 0
    cached_tokens: Annotated[int, Meta(ge=0)] = 0
    input_token_logprobs: list[list[Any]] | None = None


class _SglangAnswer(msgspec.Struct):
    meta_info: _Meta


_SGLANG = msgspec.json.Decoder(_SglangAnswer)


def sglang_usage(body: bytes) -> Usage:
    """What reading cost. Raises Unreadable."""
    told = _read(_SGLANG, body).meta_info
    return Usage(
        input_tokens=told.prompt_tokens,
        output_tokens=told.completion_tokens,
        cached_input_tokens=min(told.cached_tokens, told.prompt_tokens),
    )


def sglang_logprobs(body: bytes, text: list[int]) -> tuple[float, ...]:
    """Of the draft's tokens, in order. Raises Unreadable, also when they are those of other tokens."""
    entries = (_read(_SGLANG, body).meta_info.input_token_logprobs or [])[-len(text) :]
    if [entry[1] if len(entry) > 1 else None for entry in entries] != text:
        raise Unreadable("its log-probabilities are of other tokens than the draft's")
    return _finite([entry[0] for entry in entries])


def _finite(values: list[Any]) -> tuple[float, ...]:
    if not values or any(isinstance(one, bool) or not isinstance(one, int | float) for one in values):
        raise Unreadable("a token of the draft has no log-probability")
    found = tuple(float(one) for one in values)
    if any(math.isnan(one) or one > 0 for one in found):
        raise Unreadable("a log-probability is over 0")
    return found


def _read(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:  # noqa: ANN401 - what the decoder is of
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(str(error)) from None
