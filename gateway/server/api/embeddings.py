"""`POST /v1/embeddings`: OpenAI's embeddings."""

from __future__ import annotations

from aiohttp import web

from gateway.server.serving import serve
from gateway.server.surface import Surface
from gateway.wire.openai_completions import StreamEncoder
from gateway.wire.openai_embeddings import AnswerEncoder, decode_request

EMBEDDINGS = Surface(
    name="embeddings",
    decode=decode_request,
    stream=StreamEncoder,  # never made: its requests are not streamed
    answer=AnswerEncoder,
    id_prefix="embd-",
)


async def create(http: web.Request) -> web.StreamResponse:
    """Embed texts."""
    return await serve(http, EMBEDDINGS)
