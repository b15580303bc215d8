"""Reading along with a response that is made in the background, from any of its events on."""

from __future__ import annotations

import re

from aiohttp import web

from gateway.errors import FirstdraftError, InvalidRequest
from gateway.inference.events import Event
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.jobs.asked import Asked
from gateway.jobs.later import Job
from gateway.jobs.later_records import Kept
from gateway.server.error_shape import error_shape
from gateway.server.keys import RECORD, REPLY, STREAMS
from gateway.server.streaming import StreamReply
from gateway.wire.openai_responses import StreamEncoder, decode_request

_NUMBER = re.compile(r"[0-9]{1,9}")


def wants_stream(http: web.Request) -> bool:
    """The client wants the response's events: `?stream=true`.

    Raises:
        InvalidRequest: it is neither true nor false.
    """
    given = http.query.get("stream", "false").lower()
    if given not in {"true", "false"}:
        raise InvalidRequest("'stream' is true or false.", param="stream")
    return given == "true"


def wanted_from(http: web.Request) -> int:
    """The number of the first event that the client wants: the one after `?starting_after=`.

    Raises:
        InvalidRequest: it is no number.
    """
    given = http.query.get("starting_after")
    if given is None:
        return 0
    if not _NUMBER.fullmatch(given):
        raise InvalidRequest("'starting_after' is the sequence_number of an event.", param="starting_after")
    return int(given) + 1


class _FromOn:
    """Writes a stream from one of its events on: what comes before was seen."""

    def __init__(self, encoder: StreamEncoder, first: int) -> None:
        self._encoder = encoder
        self._left = first

    def encode(self, event: Event) -> bytes:
        return self._rest(self._encoder.encode(event))

    def end(self) -> bytes:
        return self._rest(self._encoder.end())

    def error(self, error: FirstdraftError, request_id: str) -> bytes:
        return self._encoder.error(error, request_id)

    def _rest(self, data: bytes) -> bytes:
        while self._left and data.startswith(b"event:"):
            _, _, data = data.partition(b"\n\n")
            self._left -= 1
        return data


async def follow(http: web.Request, job: Job, first: int) -> web.StreamResponse:
    """Stream the answer of a job that runs here, as it comes. The client may leave: it is made all the same."""
    reply = _reply(
        http,
        job.asked,
        job.request,
        wish=job.wish,
        first=first,
        headers=job.headers,
    )
    streams = http.app[STREAMS]
    streams.add(reply)
    try:
        await job.flight.read(reply.emit)
        return await reply.end()
    finally:
        streams.discard(reply)


async def replay(http: web.Request, kept: Kept, first: int) -> web.StreamResponse:
    """Stream an answer that is whole.

    Raises:
        InvalidRequest: it failed, or was cancelled.
    """
    found = kept.answer
    if found is None or not found.events:
        message = "This response failed or was cancelled: GET it without 'stream' to see how."
        raise InvalidRequest(message, param="stream")
    request = decode_request(kept.asked.body)
    reply = _reply(http, kept.asked, request, wish=found.wish, first=first, headers=found.headers)
    for event in found.events:
        await reply.emit(event)
    return await reply.end()


def _reply(
    http: web.Request,
    asked: Asked,
    request: InferenceRequest,
    *,
    wish: DraftWish,
    first: int,
    headers: dict[str, str],
) -> StreamReply:
    record = http[RECORD]
    record.surface, record.stream = request.surface, True
    id_headers = error_shape(http.path, http.headers).id_headers
    reply = StreamReply(
        http,
        lambda: _FromOn(
            StreamEncoder(request=request, response_id=asked.id, created=asked.created, model=request.model, wish=wish),
            first,
        ),
        lambda: dict.fromkeys(id_headers, record.request_id) | headers,
    )
    http[REPLY] = reply
    return reply
