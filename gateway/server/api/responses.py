"""`POST /v1/responses`, plain, streamed and in the background, and what was kept: below `/v1/responses/{id}`."""

from __future__ import annotations

import msgspec
from aiohttp import web

from gateway.conversations.going_on import keep, with_turns_before
from gateway.errors import FirstdraftError, InvalidRequest, NotFound
from gateway.inference.request import InferenceRequest
from gateway.jobs.asked import Asked
from gateway.jobs.endpoints import RESPONSES as URL
from gateway.jobs.later import Job
from gateway.jobs.later_records import Kept
from gateway.pipeline import Exchange
from gateway.server.following import follow, replay, wanted_from, wants_stream
from gateway.server.keys import IDENTITY, SERVICES
from gateway.server.later import begin
from gateway.server.serving import answer, decoded, exchange_of
from gateway.server.surface import Surface
from gateway.wire.openai_responses import (
    AnswerEncoder,
    ResponseObject,
    StreamEncoder,
    decode_request,
    encode_deleted,
    is_background,
)
from gateway.wire.writers import AnswerWriter, StreamWriter

_WAIT_S = 10.0
"""Between two looks at a response that another gateway makes, should nobody tell that it is there."""


async def create(http: web.Request) -> web.StreamResponse:
    """Answer a request, after the turns that led to the response it goes on from.

    Raises:
        InvalidRequest: that response is not there.
    """
    request = await decoded(http, RESPONSES)
    if is_background(request):
        return await _in_background(http, request)
    request = await with_turns_before(http.app[SERVICES].conversations, http[IDENTITY].tenant.name, request)
    return await answer(http, RESPONSES, exchange_of(http, request))


async def _in_background(http: web.Request, request: InferenceRequest) -> web.StreamResponse:
    job = await begin(http, request, url=URL, prefix=RESPONSES.id_prefix, job="background", draft=request.draft)
    if request.stream:
        return await follow(http, job, 0)
    body = msgspec.json.encode(_head(job.asked, request).waiting("queued"))
    return web.Response(body=body, content_type="application/json", headers=job.headers)


async def get(http: web.Request) -> web.StreamResponse:
    """A response that was kept, as its client got it, or one that is made in the background, as far as it is.

    Raises:
        NotFound: this tenant has no such response, or no longer.
    """
    tenant, response_id = http[IDENTITY].tenant.name, http.match_info["id"]
    services = http.app[SERVICES]
    first = wanted_from(http)
    kept = await services.jobs.later.get(tenant, response_id)
    if wants_stream(http):
        return await _stream_again(http, kept, first)
    if kept is not None and kept.asked.url == URL:
        job = services.jobs.later.here(tenant, response_id)
        return web.Response(body=_body_of(kept, job), content_type="application/json")
    found = await services.conversations.get(tenant, response_id)
    if found is None:
        raise _not_there(http)
    return web.Response(body=bytes(found.response), content_type="application/json")


async def _stream_again(http: web.Request, kept: Kept | None, first: int) -> web.StreamResponse:
    """The events of a response from one on: as they come where it is made here, else when it is whole."""
    tenant, response_id = http[IDENTITY].tenant.name, http.match_info["id"]
    later = http.app[SERVICES].jobs.later
    if kept is None or kept.asked.url != URL:
        if await http.app[SERVICES].conversations.get(tenant, response_id) is None:
            raise _not_there(http)
        raise _not_streamed()
    if not decode_request(kept.asked.body).stream:
        raise _not_streamed()
    while kept is not None:
        if first and kept.is_anew:
            message = "This response was begun anew, because its gateway was lost: read it without 'starting_after'."
            raise InvalidRequest(message, param="starting_after", code="response_begun_anew")
        if kept.state != "running":
            break
        job = later.here(tenant, response_id)
        if job is not None:
            return await follow(http, job, first)
        kept = await later.get(tenant, response_id, wait_s=_WAIT_S)
    if kept is None or kept.answer is None:
        raise _not_there(http)
    return await replay(http, kept, first)


async def cancel(http: web.Request) -> web.Response:
    """End a response that is made in the background; one that is over stays as it is.

    Raises:
        NotFound: this tenant has no such response, or no longer.
        InvalidRequest: it was not made in the background.
    """
    tenant, response_id = http[IDENTITY].tenant.name, http.match_info["id"]
    services = http.app[SERVICES]
    kept = await services.jobs.later.get(tenant, response_id)
    if kept is None or kept.asked.url != URL:
        if await services.conversations.get(tenant, response_id) is None:
            raise _not_there(http)
        raise InvalidRequest("Only a response that is made in the background can be cancelled.")
    if await services.jobs.later.cancel(tenant, response_id):
        kept = msgspec.structs.replace(kept, state="cancelled", answer=None)
    else:
        kept = await services.jobs.later.get(tenant, response_id) or kept
    return web.Response(body=_body_of(kept, None), content_type="application/json")


async def delete(http: web.Request) -> web.Response:
    """Forget a response that was kept; one that is still being made is ended."""
    tenant, response_id = http[IDENTITY].tenant.name, http.match_info["id"]
    services = http.app[SERVICES]
    kept = await services.jobs.later.get(tenant, response_id)
    was_later = kept is not None and kept.asked.url == URL
    if was_later:
        await services.jobs.later.delete(tenant, response_id)
    if not await services.conversations.delete(tenant, response_id) and not was_later:
        raise _not_there(http)
    return web.Response(body=encode_deleted(response_id), content_type="application/json")


def _body_of(kept: Kept, job: Job | None) -> bytes:
    """The response object for the state that it is in."""
    found = kept.answer
    if kept.state == "done" and found is not None and not found.failed:
        return found.body
    head = _head(kept.asked, decode_request(kept.asked.body))
    if kept.state == "done" and found is not None:
        return msgspec.json.encode(head.waiting("failed", msgspec.json.decode(found.body).get("error") or {}))
    if kept.state == "cancelled":
        return msgspec.json.encode(head.waiting("cancelled"))
    return msgspec.json.encode(head.waiting("queued" if job is None and not kept.is_anew else "in_progress"))


def _head(asked: Asked, request: InferenceRequest) -> ResponseObject:
    head = ResponseObject(request=request, response_id=asked.id, created=asked.created, model=request.model)
    head.kept = True
    return head


def _not_streamed() -> InvalidRequest:
    return InvalidRequest("Only a response that was made in the background with 'stream' can be streamed again.")


def _not_there(http: web.Request) -> FirstdraftError:
    response_id = http.match_info["id"][:100]
    return NotFound(f"There is no response {response_id!r}: it was not stored, was deleted, or has expired.")


async def _keep(http: web.Request, exchange: Exchange, writer: StreamWriter | AnswerWriter) -> None:
    """Keep the response before its client is told that it is kept."""
    await keep(http.app[SERVICES].conversations, exchange.identity.tenant.name, exchange.request, writer)


RESPONSES = Surface(
    name="responses",
    decode=decode_request,
    stream=StreamEncoder,
    answer=AnswerEncoder,
    id_prefix="resp_",
    finish=_keep,
)
