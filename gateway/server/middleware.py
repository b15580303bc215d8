"""Around every request: its id and record, the one error boundary, the tenant."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from gateway.errors import (
    BodyTooLarge,
    ClientGone,
    FirstdraftError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    ShuttingDown,
)
from gateway.server.identity import identify
from gateway.server.keys import IDENTITY, RECORD, REPLY, SERVICES, STARTED
from gateway.telemetry.record import RequestRecord
from gateway.wire.openai_chat import encode_error

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: neither logged nor counted."""


@web.middleware
async def boundary(http: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id and a record, and turn whatever goes wrong into one clear answer."""
    services = http.app[SERVICES]
    started = asyncio.get_running_loop().time()
    record = RequestRecord(request_id=f"req-{os.urandom(12).hex()}", method=http.method, path=http.path)
    http[STARTED] = started
    http[RECORD] = record
    services.begin()
    counted = http.path not in _QUIET_PATHS
    if counted:
        services.metrics.begin()
    try:
        response = await _answer(http, handler, record)
        record.status = response.status
    except asyncio.CancelledError:
        record.status = ClientGone.status
        record.error = ShuttingDown.code or "" if services.draining else ClientGone.code or ""
        raise
    finally:
        services.end()
        record.e2e_s = asyncio.get_running_loop().time() - started
        if counted:
            services.finish(record)
    return response


async def _answer(http: web.Request, handler: Handler, record: RequestRecord) -> web.StreamResponse:
    try:
        response = await handler(http)
        if not response.prepared:
            response.headers["x-request-id"] = record.request_id
    except FirstdraftError as error:
        return await _tell(http, record, error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return await _tell(http, record, _from_http(http, error))
    except ConnectionError:
        return await _tell(http, record, ClientGone("the client closed the connection"))
    except Exception:  # noqa: BLE001 the one boundary: the client gets an answer, the log gets the rest
        structlog.get_logger().exception("internal_error", request_id=record.request_id, path=http.path)
        return await _tell(http, record, InternalError("internal error"))
    else:
        return response


async def _tell(http: web.Request, record: RequestRecord, error: FirstdraftError) -> web.StreamResponse:
    """Answer with the error: as a status while that is possible, inside the stream after that."""
    record.error = error.code or "error"
    reply = http.get(REPLY)
    if reply is not None and reply.begun:
        return await reply.fail(error)
    headers = {"x-request-id": record.request_id, **error.headers}
    response = web.Response(
        status=error.status,
        body=encode_error(error, record.request_id),
        content_type="application/json",
        headers=headers,
    )
    if isinstance(error, ShuttingDown | ClientGone):
        response.force_close()
    return response


def _from_http(http: web.Request, error: web.HTTPException) -> FirstdraftError:
    """What aiohttp itself refuses, in our words."""
    match error.status:
        case 404:
            return NotFound(f"There is no {http.method} {http.path[:200]} here. See GET /v1/models to begin with.")
        case 405:
            allowed = ", ".join(sorted(getattr(error, "allowed_methods", ())))
            return MethodNotAllowed(f"{http.path[:200]} does not take {http.method}; it takes {allowed}.")
        case 413:
            limit = http.app[SERVICES].settings.body_limit_bytes
            return BodyTooLarge(f"The request body is larger than this gateway's limit of {limit:,} bytes.")
        case _:
            return InvalidRequest(f"The request could not be read: {error.reason}.")


@web.middleware
async def authenticate(http: web.Request, handler: Handler) -> web.StreamResponse:
    """Find the tenant of everything under `/v1/`; refuse new work while the gateway drains."""
    if not http.path.startswith("/v1/"):
        return await handler(http)
    services = http.app[SERVICES]
    if services.draining:
        message = "This gateway is shutting down and takes no new requests; another try reaches the next one."
        raise ShuttingDown(message, retry_after_s=1)
    identity = identify(services.policy.current, http.headers, loopback=services.settings.loopback)
    record = http[RECORD]
    record.tenant, record.key = identity.tenant.name, identity.key
    http[IDENTITY] = identity
    return await handler(http)
