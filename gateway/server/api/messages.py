"""`POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's Messages, plain and streamed."""

from __future__ import annotations

from aiohttp import web

from gateway.errors import UnknownModel
from gateway.inference.usage import input_tokens_estimate
from gateway.server.body import read_body
from gateway.server.keys import POLICY, RECORD
from gateway.server.serving import serve
from gateway.server.surface import Surface
from gateway.wire.anthropic_messages import (
    AnswerEncoder,
    StreamEncoder,
    decode_count_request,
    decode_request,
    encode_count,
)

MESSAGES = Surface(name="messages", decode=decode_request, stream=StreamEncoder, answer=AnswerEncoder, id_prefix="msg_")


async def create(http: web.Request) -> web.StreamResponse:
    """Answer a conversation."""
    return await serve(http, MESSAGES)


async def count_tokens(http: web.Request) -> web.Response:
    """How many input tokens a request has: the estimate that routing uses. Nothing is asked, nothing is charged.

    Raises:
        UnknownModel: there is no model of that name.
    """
    request = decode_count_request(await read_body(http))
    http[RECORD].model = request.model
    if request.model not in http[POLICY].models:
        message = f"There is no model {request.model[:100]!r}. GET /v1/models lists the models there are."
        raise UnknownModel(message, param="model")
    return web.Response(body=encode_count(input_tokens_estimate(request)), content_type="application/json")
