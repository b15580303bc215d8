"""Tokens counted, before (bounds, estimates) and after (usage)."""

from __future__ import annotations

import msgspec

from gateway.inference.request import InferenceRequest

IMAGE_TOKENS_BOUND = 5_000
"""Most input tokens one image costs at the providers we know (Anthropic's full-size image, about 4,784)."""
AUDIO_TOKENS_BOUND = 20_000
"""Most input tokens taken for one audio part (about half an hour at OpenAI's 10 tokens a second)."""
_TEMPLATE_TOKENS_PER_MESSAGE = 16
_TEMPLATE_TOKENS = 64
_TOOLS_TOKENS = 600
"""What providers put before tool definitions by themselves (Anthropic: up to 346)."""
_MOST_COUNTED = 2**40
"""No answer has more; a larger number is not a count."""
_BYTES_PER_TOKEN_ESTIMATE = 4
_BYTES_PER_TOKEN_CHARGED = 3
"""Fewer than English has (about 4.2)."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one answer. Cached, written and audio tokens are part of `input_tokens`, others of `output_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    """Input that the provider put into its cache, where it bills that apart (Anthropic)."""
    audio_input_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    rejected_prediction_tokens: int = 0
    """Of the client's `prediction`, generated and not in the answer."""
    estimated: bool = False
    """True when the backend gave no usage and the gateway counted."""

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def input_tokens_bound(request: InferenceRequest, image_tokens: int = IMAGE_TOKENS_BOUND) -> int:
    """The most input tokens that this request can cost, `image_tokens` for each image: what a hold reserves.

    A byte-level BPE makes at most one token of a byte; each message adds its template's control tokens.
    """
    return (
        request.prompt_bytes
        + _TEMPLATE_TOKENS
        + _TEMPLATE_TOKENS_PER_MESSAGE * len(request.messages)
        + (_TOOLS_TOKENS if request.tools else 0)
        + image_tokens * request.images
        + AUDIO_TOKENS_BOUND * request.audio
    )


def input_tokens_estimate(request: InferenceRequest) -> int:
    """The input tokens that this request probably has (4 bytes a token, as English has): for routing, not money."""
    return request.prompt_bytes // _BYTES_PER_TOKEN_ESTIMATE + 4 * len(request.messages)


def input_tokens_charged(request: InferenceRequest, image_tokens: int = IMAGE_TOKENS_BOUND) -> int:
    """The input tokens that are booked when the backend gave no usage: by 3 bytes a token, images and audio in full.

    Rather too much than too little: whoever leaves before the usage comes must not pay less for it.
    """
    text = -(-request.prompt_bytes // _BYTES_PER_TOKEN_CHARGED) + _TEMPLATE_TOKENS_PER_MESSAGE * len(request.messages)
    return text + image_tokens * request.images + AUDIO_TOKENS_BOUND * request.audio


def output_tokens_estimate(text_bytes: int) -> int:
    """The output tokens that so many bytes of answer probably had, when the backend gave no usage.

    3 bytes a token: fewer than English has (about 4.2), so that what is counted is rather too much than too little.
    """
    return -(-text_bytes // _BYTES_PER_TOKEN_CHARGED)


def counted(value: object) -> int | None:
    """A number of tokens as a backend wrote it; None: it is no number of tokens at all."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST_COUNTED else None


def believable(usage: Usage, *, input_tokens: int, output_tokens: float) -> Usage:
    """What a backend counted, cut to the most that can be true, and marked as estimated where it was cut."""
    if usage.input_tokens <= input_tokens and usage.output_tokens <= output_tokens:
        return usage
    return msgspec.structs.replace(
        usage,
        input_tokens=min(usage.input_tokens, input_tokens),
        output_tokens=int(min(usage.output_tokens, output_tokens)),
        cached_input_tokens=min(usage.cached_input_tokens, input_tokens),
        estimated=True,
    )
