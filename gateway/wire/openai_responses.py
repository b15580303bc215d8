"""OpenAI's Responses, both directions, under one name."""

from __future__ import annotations

from gateway.wire.openai_responses_answer import ResponseObject, encode_deleted
from gateway.wire.openai_responses_encode import AnswerEncoder, StreamEncoder
from gateway.wire.openai_responses_request import (
    continued,
    decode_request,
    is_background,
    is_kept,
    previous_of,
    turns_of,
)

__all__ = [
    "AnswerEncoder",
    "ResponseObject",
    "StreamEncoder",
    "continued",
    "decode_request",
    "encode_deleted",
    "is_background",
    "is_kept",
    "previous_of",
    "turns_of",
]
