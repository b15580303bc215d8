"""`POST /v1/responses`, plain and streamed, and what was kept: `GET` and `DELETE /v1/responses/{id}`."""

from __future__ import annotations

import msgspec
from aiohttp import web

from gateway.conversations.kept import KeptResponse
from gateway.errors import InvalidRequest, NotFound
from gateway.pipeline import Exchange
from gateway.server.keys import IDENTITY, SERVICES
from gateway.server.serving import answer, decoded, exchange_of
from gateway.server.surface import AnswerWriter, StreamWriter, Surface
from gateway.wire.openai_responses import (
    AnswerEncoder,
    StreamEncoder,
    continued,
    decode_request,
    encode_deleted,
    is_kept,
    previous_of,
    turns_of,
)


async def create(http: web.Request) -> web.StreamResponse:
    """Answer a request, after the turns that led to the response it goes on from.

    Raises:
        InvalidRequest: that response is not there.
    """
    request = await decoded(http, RESPONSES)
    previous = previous_of(request)
    if previous is not None:
        kept = await http.app[SERVICES].conversations.get(http[IDENTITY].tenant.name, previous)
        if kept is None:
            message = f"There is no response {previous[:100]!r} to go on from: it was not stored, or has expired."
            raise InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")
        request = continued(request, kept.turns)
    return await answer(http, RESPONSES, exchange_of(http, request))


async def get(http: web.Request) -> web.Response:
    """A response that was kept, as its client got it."""
    kept = await http.app[SERVICES].conversations.get(http[IDENTITY].tenant.name, http.match_info["id"])
    if kept is None:
        raise _not_there(http)
    return web.Response(body=bytes(kept.response), content_type="application/json")


async def delete(http: web.Request) -> web.Response:
    """Forget a response that was kept."""
    response_id = http.match_info["id"]
    if not await http.app[SERVICES].conversations.delete(http[IDENTITY].tenant.name, response_id):
        raise _not_there(http)
    return web.Response(body=encode_deleted(response_id), content_type="application/json")


def _not_there(http: web.Request) -> NotFound:
    response_id = http.match_info["id"][:100]
    return NotFound(f"There is no response {response_id!r}: it was not stored, was deleted, or has expired.")


async def _keep(http: web.Request, exchange: Exchange, writer: StreamWriter | AnswerWriter) -> None:
    """Keep the response before its client is told that it is kept."""
    if not isinstance(writer, StreamEncoder | AnswerEncoder) or not is_kept(exchange.request):
        return
    turns = (*turns_of(exchange.request), writer.turn)
    kept = KeptResponse(msgspec.Raw(msgspec.json.encode(writer.response())), turns)
    tenant, head = exchange.identity.tenant.name, writer.head
    head.kept = await http.app[SERVICES].conversations.put(tenant, head.response_id, kept)


RESPONSES = Surface(
    name="responses",
    decode=decode_request,
    stream=StreamEncoder,
    answer=AnswerEncoder,
    id_prefix="resp_",
    finish=_keep,
)
