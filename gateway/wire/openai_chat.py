"""OpenAI's chat completions, both directions, under one name."""

from __future__ import annotations

from gateway.wire.openai_chat_answer import decode_answer
from gateway.wire.openai_chat_encode import AnswerEncoder, StreamEncoder, encode_model, encode_models, encode_usage
from gateway.wire.openai_chat_error import encode_error, refused_by_status
from gateway.wire.openai_chat_request import decode_request, encode_request
from gateway.wire.openai_chat_stream import StreamDecoder

__all__ = [
    "AnswerEncoder",
    "StreamDecoder",
    "StreamEncoder",
    "decode_answer",
    "decode_request",
    "encode_error",
    "encode_model",
    "encode_models",
    "encode_request",
    "encode_usage",
    "refused_by_status",
]
