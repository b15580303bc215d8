"""`POST /v1/completions`: OpenAI's legacy completions, plain and streamed."""

from __future__ import annotations

from aiohttp import web

from gateway.server.serving import serve
from gateway.server.surface import Surface
from gateway.wire.openai_completions import AnswerEncoder, StreamEncoder, decode_request

COMPLETIONS = Surface(
    name="completions", decode=decode_request, stream=StreamEncoder, answer=AnswerEncoder, id_prefix="cmpl-"
)


async def create(http: web.Request) -> web.StreamResponse:
    """Complete a prompt."""
    return await serve(http, COMPLETIONS)
