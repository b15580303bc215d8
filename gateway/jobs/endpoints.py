"""The URLs whose requests can be answered later, and what reads and writes their bodies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.errors import InvalidRequest
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.wire import openai_chat, openai_completions, openai_embeddings, openai_responses
from gateway.wire.writers import MakeAnswer


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One URL."""

    decode: Callable[[bytes], InferenceRequest]
    answer: MakeAnswer
    id_prefix: str


CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
ENDPOINTS = {
    CHAT: Endpoint(openai_chat.decode_request, openai_chat.AnswerEncoder, "chatcmpl-"),
    "/v1/completions": Endpoint(openai_completions.decode_request, openai_completions.AnswerEncoder, "cmpl-"),
    "/v1/embeddings": Endpoint(openai_embeddings.decode_request, openai_embeddings.AnswerEncoder, "embd-"),
    RESPONSES: Endpoint(openai_responses.decode_request, openai_responses.AnswerEncoder, "resp_"),
}


def decode_line(url: str, body: bytes) -> InferenceRequest:
    """The request in a batch's line.

    Raises:
        InvalidRequest: a field is wrong, or wants what only a client that waits can get.
    """
    request = ENDPOINTS[url].decode(body)
    if request.stream:
        raise InvalidRequest("A line of a batch cannot be streamed: leave 'stream' out.", param="stream")
    if openai_responses.is_background(request):
        raise InvalidRequest("A line of a batch waits anyway: leave 'background' out.", param="background")
    return msgspec.structs.replace(request, draft=DraftWish.OFF)  # nobody would see it
