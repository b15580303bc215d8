"""Anthropic's Messages, both directions, under one name."""

from __future__ import annotations

from gateway.wire.anthropic_messages_encode import AnswerEncoder, StreamEncoder, encode_count
from gateway.wire.anthropic_messages_error import encode_error
from gateway.wire.anthropic_messages_request import decode_count_request, decode_request

__all__ = [
    "AnswerEncoder",
    "StreamEncoder",
    "decode_count_request",
    "decode_request",
    "encode_count",
    "encode_error",
]
