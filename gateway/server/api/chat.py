"""`POST /v1/chat/completions`: OpenAI's chat completions, plain and streamed."""

from __future__ import annotations

from aiohttp import web

from gateway.server.serving import serve
from gateway.server.surface import Surface
from gateway.wire.openai_chat import AnswerEncoder, StreamEncoder, decode_request

CHAT = Surface(name="chat", decode=decode_request, stream=StreamEncoder, answer=AnswerEncoder, id_prefix="chatcmpl-")


async def create(http: web.Request) -> web.StreamResponse:
    """Answer a chat."""
    return await serve(http, CHAT)
