"""What all surfaces share: from a request's body through the pipeline to its answer, plain or streamed."""

from __future__ import annotations

import re
import time
from typing import TypedDict

import msgspec
from aiohttp import HttpVersion11, web

from gateway.cache import control
from gateway.errors import InvalidRequest
from gateway.exchange import feature_of
from gateway.inference.events import Event
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.pipeline import Exchange
from gateway.server.body import read_body
from gateway.server.connections import Connection
from gateway.server.error_shape import error_shape
from gateway.server.keys import (
    DECISION_HEADERS,
    IDENTITY,
    POLICY,
    RECORD,
    REPEATS,
    REPLY,
    SERVICES,
    SHORTCUT,
    STARTED,
    STREAMS,
)
from gateway.server.said import said_feature, said_labels
from gateway.server.shortcut import fixed_bytes
from gateway.server.streaming import STREAM_HEADERS, StreamReply
from gateway.server.surface import Surface

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


async def serve(http: web.Request, surface: Surface) -> web.StreamResponse:
    """Decode, run, and write the answer as it comes or as a whole."""
    return await answer(http, surface, exchange_of(http, await decoded(http, surface)))


async def answer(http: web.Request, surface: Surface, exchange: Exchange) -> web.StreamResponse:
    """Run an exchange, and write its answer."""
    if exchange.request.stream:
        return await _stream(http, surface, exchange)
    return await _whole(http, surface, exchange)


async def _stream(http: web.Request, surface: Surface, exchange: Exchange) -> web.StreamResponse:
    reply = StreamReply(http, lambda: surface.stream(**_answer(surface, exchange)), lambda: _headers(http, exchange))
    http[REPLY] = reply
    streams = http.app[STREAMS]
    streams.add(reply)
    try:
        await http.app[SERVICES].pipeline.run(exchange, reply.emit)
        if surface.finish is not None:
            await surface.finish(http, exchange, reply.writer)
        response = await reply.end()
        if exchange.repeatable is not None:
            writer = surface.stream(**_answer(surface, exchange))
            body = b"".join([writer.encode(event) for event in exchange.repeatable.found.events]) + writer.end()
            await _remember(http, surface, exchange, body, _headers(http, exchange) | STREAM_HEADERS)
        return response
    finally:
        streams.discard(reply)


async def _whole(http: web.Request, surface: Surface, exchange: Exchange) -> web.Response:
    events: list[Event] = []

    async def collect(event: Event) -> None:
        events.append(event)

    await http.app[SERVICES].pipeline.run(exchange, collect)
    encoder = surface.answer(**_answer(surface, exchange))
    for event in events:
        encoder.add(event)
    if surface.finish is not None:
        await surface.finish(http, exchange, encoder)
    body, headers = encoder.body(), _headers(http, exchange)
    if exchange.repeatable is not None:
        await _remember(http, surface, exchange, body, {**headers, "content-type": "application/json"})
    return web.Response(body=body, content_type="application/json", headers=headers)


async def _remember(
    http: web.Request, surface: Surface, exchange: Exchange, body: bytes, headers: dict[str, str]
) -> None:
    """Where this was a hit that may come again, keep its response for the next time."""
    connection = http.protocol
    said = connection.said(http) if isinstance(connection, Connection) else None
    is_usual = http.version == HttpVersion11 and http.keep_alive and "expect" not in http.headers
    if said is None or not is_usual or surface.finish is not None or not fixed_bytes(exchange):
        return
    response = web.Response(headers=headers)
    await http.app.on_response_prepare.send(http, response)  # what is added to all responses
    id_headers = error_shape(http.path, http.headers).id_headers
    http.app[SHORTCUT].remember(said, exchange, body, response.headers, tuple(id_headers))


class _Answer(TypedDict):
    request: InferenceRequest
    response_id: str
    created: int
    model: str
    wish: DraftWish


def _answer(surface: Surface, exchange: Exchange) -> _Answer:
    """What an answer of the gateway's own making says of itself; known once policy has decided."""
    return _Answer(
        request=exchange.request,
        response_id=f"{surface.id_prefix}{exchange.record.request_id.removeprefix('req-')}",
        created=int(time.time()),
        model=exchange.request.model,
        wish=exchange.draft_wish,
    )


def _headers(http: web.Request, exchange: Exchange) -> dict[str, str]:
    id_headers = error_shape(http.path, http.headers).id_headers
    headers = dict.fromkeys(id_headers, exchange.record.request_id) | exchange.headers
    if exchange.record.deployment:
        headers["x-firstdraft-deployment"] = exchange.record.deployment
    if exchange.record.dropped:
        headers["x-firstdraft-dropped"] = exchange.record.dropped
    return headers


async def decoded(http: web.Request, surface: Surface) -> InferenceRequest:
    """The request in a body, its draft as the header says where the body does not."""
    body = await read_body(http)
    request = http.app[REPEATS][surface.name].decode(http[IDENTITY].tenant.name, body)
    return _with_forwarded(http, _with_draft_header(request, http.headers.get("x-firstdraft-draft")))


def exchange_of(http: web.Request, request: InferenceRequest) -> Exchange:
    """Put what the body and the headers say into one exchange, and note it in the record."""
    record = http[RECORD]
    record.surface, record.model, record.stream = request.surface, request.model, request.stream
    record.feature = feature_of(said_feature(http), request)
    traceparent = http.headers.get("traceparent", "")
    exchange = Exchange(
        request=request,
        identity=http[IDENTITY],
        policy=http[POLICY],
        record=record,
        started=http[STARTED],
        feature=record.feature,
        labels=said_labels(http),
        believed=http[POLICY].believed(http.remote, lambda name: http.headers.getall(name, ())),
        cache_control=control.parse(",".join(http.headers.getall("cache-control", ()))),
        traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else None,
    )
    http[DECISION_HEADERS] = exchange.headers
    return exchange


def _with_forwarded(http: web.Request, request: InferenceRequest) -> InferenceRequest:
    """With the headers that policy lets through to some backend; what stands in several lines is one list."""
    found = {name: ", ".join(http.headers.getall(name)) for name in http[POLICY].forwarded if name in http.headers}
    return msgspec.structs.replace(request, forwarded=found) if found else request


def _with_draft_header(request: InferenceRequest, header: str | None) -> InferenceRequest:
    """The header says how the draft is wanted where the body does not."""
    if header is None:
        return request
    try:
        wish = DraftWish(header.strip().lower())
    except ValueError:
        message = f"x-firstdraft-draft is one of {', '.join(DraftWish)}."
        raise InvalidRequest(message, param="x-firstdraft-draft") from None
    return request if request.draft is not None else msgspec.structs.replace(request, draft=wish)
