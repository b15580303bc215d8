"""`POST /v1/chat/completions`: OpenAI's chat completions, plain and streamed; and those that are fetched later."""

from __future__ import annotations

from aiohttp import web

from gateway.errors import NotFound
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.jobs.asked import Asked
from gateway.jobs.endpoints import CHAT as URL
from gateway.server.keys import IDENTITY, PROXIES, SERVICES
from gateway.server.later import begin, prefers_async, wait_of
from gateway.server.serving import answer, decoded, exchange_of, serve
from gateway.server.surface import Surface
from gateway.wire.openai_chat import AnswerEncoder, StreamEncoder, decode_request
from gateway.wire.openai_chat_later import encode_deleted, encode_pending

CHAT = Surface(name="chat", decode=decode_request, stream=StreamEncoder, answer=AnswerEncoder, id_prefix="chatcmpl-")
_RETRY_AFTER_S = "1"


async def create(http: web.Request) -> web.StreamResponse:
    """Answer a chat; or, for a client that would rather not wait, give its draft, and the place of its final."""
    if not prefers_async(http):
        return await serve(http, CHAT)
    request = await decoded(http, CHAT)
    if request.stream:  # it gets everything as it comes
        return await answer(http, CHAT, exchange_of(http, request))
    return await _accepted(http, request)


async def _accepted(http: web.Request, request: InferenceRequest) -> web.Response:
    draft = request.draft or DraftWish.FRAMES
    job = await begin(http, request, url=URL, prefix=CHAT.id_prefix, job="async", draft=draft)
    shown = await http.app[SERVICES].jobs.later.shown(job)
    headers = job.headers | {
        "location": f"{http.app[PROXIES].url(http)}{URL}/{job.asked.id}",
        "preference-applied": "respond-async",
        "retry-after": _RETRY_AFTER_S,
    }
    body = encode_pending(answer_id=job.asked.id, created=job.asked.created, model=request.model, draft=shown)
    return web.Response(status=202, body=body, content_type="application/json", headers=headers)


async def get(http: web.Request) -> web.Response:
    """The final, when it is there; until then 202. `?wait=20` holds the connection for it.

    Raises:
        NotFound: this tenant has no such completion, or no longer.
    """
    tenant, answer_id = http[IDENTITY].tenant.name, http.match_info["id"]
    kept = await http.app[SERVICES].jobs.later.get(tenant, answer_id, wait_s=wait_of(http))
    if kept is None or kept.asked.url != URL:
        raise _not_there(answer_id)
    if kept.answer is not None:
        found = kept.answer
        return web.Response(
            status=found.status, body=found.body, content_type="application/json", headers=found.headers
        )
    body = encode_pending(
        answer_id=answer_id, created=kept.asked.created, model=_model_of(kept.asked), draft=kept.draft
    )
    return web.Response(status=202, body=body, content_type="application/json", headers={"retry-after": _RETRY_AFTER_S})


async def delete(http: web.Request) -> web.Response:
    """Forget a completion; one that is still being made is ended.

    Raises:
        NotFound: this tenant has no such completion, or no longer.
    """
    tenant, answer_id = http[IDENTITY].tenant.name, http.match_info["id"]
    later = http.app[SERVICES].jobs.later
    kept = await later.get(tenant, answer_id)
    if kept is None or kept.asked.url != URL:
        raise _not_there(answer_id)
    await later.delete(tenant, answer_id)
    return web.Response(body=encode_deleted(answer_id), content_type="application/json")


def _model_of(asked: Asked) -> str:
    return decode_request(asked.body).model


def _not_there(answer_id: str) -> NotFound:
    message = f"There is no completion {answer_id[:100]!r} to be fetched: it was deleted, has expired, or never was."
    return NotFound(message)
