"""Around every request: its id and record, the one error boundary, the tenant."""

from __future__ import annotations

import asyncio
import os

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.errors import (
    BodyTooLarge,
    ClientGone,
    FirstdraftError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    ShuttingDown,
    Unauthenticated,
)
from gateway.server.api.schema import DOCUMENT
from gateway.server.error_shape import error_shape
from gateway.server.identity import identify, identify_token, token_in
from gateway.server.keys import (
    DECISION_HEADERS,
    IDENTITY,
    POLICY,
    PROXIES,
    RECORD,
    REPLY,
    SERVICES,
    STARTED,
)
from gateway.server.streaming import StreamReply
from gateway.telemetry.record import RequestRecord

_QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: neither logged nor counted."""


_ADMIN = "/admin/"
"""Asked by operators and the dashboard, which log what they change by themselves."""


def _is_quiet_admin(path: str) -> bool:
    return path.startswith(_ADMIN) and path != "/admin/v1/playground"  # that is a request as any other


@web.middleware
async def boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id and a record, and turn whatever goes wrong into one clear answer."""
    services = request.app[SERVICES]
    started = asyncio.get_running_loop().time()
    record = RequestRecord(request_id=f"req-{os.urandom(12).hex()}", method=request.method, path=request.path)
    record.client = request.app[PROXIES].client(request.remote, request.headers)
    request[STARTED] = started
    request[RECORD] = record
    counted = request.path not in _QUIET_PATHS and not _is_quiet_admin(request.path)
    if counted:
        services.metrics.begin()
    task = asyncio.current_task()
    services.begin(task)
    try:
        response = await _answer(request, handler, record)
        record.status = response.status
    except asyncio.CancelledError:
        if not services.cutting:
            record.status, record.error = ClientGone.status, ClientGone.code or ""
            raise
        # Ours, not the client's: there still is somebody to tell.
        message = "The gateway is shutting down, and the time that running answers had is over."
        response = await _tell(request, record, ShuttingDown(message))
        record.status = response.status
    finally:
        services.end(task)
        if record.stream:
            request.pop(REPLY, None)  # it holds the request: neither would go with its last user
        record.e2e_s = asyncio.get_running_loop().time() - started
        if counted:
            services.finish(record)
    return response


async def _answer(request: web.Request, handler: Handler, record: RequestRecord) -> web.StreamResponse:
    try:
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_id_headers(request, record))
    except FirstdraftError as error:
        return await _tell(request, record, error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return await _tell(request, record, _from_http(request, error))
    except ConnectionError:
        return await _tell(request, record, ClientGone("the client closed the connection"))
    except Exception:  # noqa: BLE001 the one boundary: the client gets an answer, the log gets the rest
        structlog.get_logger().exception("internal_error", request_id=record.request_id, path=request.path)
        return await _tell(request, record, InternalError("internal error"))
    else:
        return response


async def _tell(request: web.Request, record: RequestRecord, error: FirstdraftError) -> web.StreamResponse:
    """Answer with the error: as a status while that is possible, inside the stream after that."""
    record.error = error.code or error.type
    error.__traceback__ = None  # its frames may hold the error itself, and all of the request
    reply: StreamReply | None = request.get(REPLY)
    if reply is not None and reply.begun:
        return await reply.fail(error, record.request_id)
    headers = {**_id_headers(request, record), **request.get(DECISION_HEADERS, {}), **error.headers}
    response = web.Response(
        status=error.status,
        body=error_shape(request.path, request.headers).encode(error, record.request_id),
        content_type="application/json",
        headers=headers,
    )
    if isinstance(error, ShuttingDown | ClientGone):
        response.force_close()
    return response


def _id_headers(request: web.Request, record: RequestRecord) -> dict[str, str]:
    return dict.fromkeys(error_shape(request.path, request.headers).id_headers, record.request_id)


def _from_http(request: web.Request, error: web.HTTPException) -> FirstdraftError:
    """What aiohttp itself refuses, in our words."""
    match error.status:
        case 404:
            is_api = DOCUMENT in request.app
            hint = _way_to_what_is(request.path) if is_api else "This port has the admin surface alone, below /admin/."
            return NotFound(f"There is no {request.method} {request.path[:200]} here. {hint}")
        case 405:
            allowed = ", ".join(sorted(getattr(error, "allowed_methods", ())))
            return MethodNotAllowed(f"{request.path[:200]} does not take {request.method}; it takes {allowed}.")
        case 413:
            limit = request.app[SERVICES].settings.body_limit_bytes
            return BodyTooLarge(f"The request body is larger than this gateway's limit of {limit:,} bytes.")
        case _:
            return InvalidRequest(f"The request could not be read: {error.reason}.")


def _way_to_what_is(path: str) -> str:
    """A word of help where there is nothing: most often the client's base URL has too little, or too much."""
    if path.startswith("/v1/v1/"):
        return "The client adds /v1 by itself, as Anthropic's SDKs do: leave it out of its base URL."
    if path.startswith("/v1/"):
        return "See GET /v1/models to begin with."
    return "The API is below /v1, which belongs in a client's base URL; the admin surface is below /admin/."


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find the tenant of everything under `/v1/`; refuse new work while the gateway drains."""
    if not request.path.startswith("/v1/"):
        return await handler(request)
    services = request.app[SERVICES]
    if services.draining:
        message = "This gateway is shutting down and takes no new requests; another try reaches the next one."
        raise ShuttingDown(message, retry_after_s=1)
    # Taken once: authentication, decision and budget of a request are under one policy, whatever is swapped meanwhile.
    policy = request[POLICY] = services.policy.current
    for name in ("authorization", "x-api-key"):
        if len(request.headers.getall(name, ())) > 1:
            raise Unauthenticated(f"The header {name} was sent more than once: send one key.")
    token = token_in(policy, request.headers)
    if token is None:
        identity = identify(policy, request.headers, loopback=services.loopback)
    else:
        identity = await identify_token(policy, token, services.vouching)
    record = request[RECORD]
    record.tenant, record.key = identity.tenant.name, identity.key
    request[IDENTITY] = identity
    return await handler(request)
