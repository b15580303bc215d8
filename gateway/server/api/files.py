"""`/v1/files`: what batches are made of, and what they give."""

from __future__ import annotations

import structlog
from aiohttp import web

from gateway.errors import ClientGone, FirstdraftError, InvalidRequest, NotFound
from gateway.jobs.files import FileMeta
from gateway.server.keys import IDENTITY, SERVICES
from gateway.server.pages import limit_of, wanted_of
from gateway.server.uploads import read_upload
from gateway.wire.openai_files import encode_file_deleted, encode_object, encode_page

_MOST = 10_000


async def create(http: web.Request) -> web.Response:
    """Upload a file of requests, one a line; each line is checked.

    Raises:
        InvalidRequest: a line is wrong; the message says which.
        BodyTooLarge: it is too large, or the tenant has no room left.
    """
    meta = await read_upload(http)
    return web.Response(body=encode_object(meta.object()), content_type="application/json")


async def list_all(http: web.Request) -> web.Response:
    """The tenant's files, the newest first, or with `order=asc` the oldest."""
    files, tenant = http.app[SERVICES].jobs.files, http[IDENTITY].tenant.name
    order, purpose = http.query.get("order", "desc"), http.query.get("purpose", "")
    if order not in {"asc", "desc"}:
        raise InvalidRequest("'order' is asc or desc.", param="order")
    limit = limit_of(http, default=_MOST, most=_MOST)
    ids = wanted_of(http, await files.ids(tenant, newest_first=order == "desc"))
    found = [meta for meta in await files.metas(tenant, ids) if not purpose or meta.purpose == purpose]
    objects = [meta.object() for meta in found[:limit]]
    return web.Response(body=encode_page(objects, has_more=len(found) > limit), content_type="application/json")


async def get(http: web.Request) -> web.Response:
    """What is known of a file.

    Raises:
        NotFound: this tenant has no such file, or no longer.
    """
    return web.Response(body=encode_object((await _found(http)).object()), content_type="application/json")


async def content(http: web.Request) -> web.StreamResponse:
    """A file's lines.

    Raises:
        NotFound: this tenant has no such file, or no longer.
    """
    jobs, meta = http.app[SERVICES].jobs, await _found(http)
    pieces = jobs.batches.content(meta) if meta.of_batch else jobs.files.content(http[IDENTITY].tenant.name, meta)
    response = web.StreamResponse(headers={"content-type": "application/jsonl"})
    response.content_length = meta.bytes
    try:
        await response.prepare(http)
        if http.method != "HEAD":
            async for piece in pieces:
                await response.write(piece)
        await response.write_eof()
    except ConnectionError:
        raise ClientGone("the client closed the connection in mid-file") from None
    except FirstdraftError as error:  # part of it is sent: all that is left is to let it be seen that it is cut
        structlog.get_logger().warning("file_cut", file=meta.id, reason=error.message)
        if http.transport is not None:
            http.transport.abort()
        raise ClientGone("the file could not be sent to its end") from None
    return response


async def delete(http: web.Request) -> web.Response:
    """Delete a file.

    Raises:
        NotFound: this tenant has no such file, or no longer.
    """
    jobs, meta = http.app[SERVICES].jobs, await _found(http)
    if meta.of_batch:
        await jobs.batches.forget_content(meta)
    await jobs.files.delete(http[IDENTITY].tenant.name, meta)
    return web.Response(body=encode_file_deleted(meta.id), content_type="application/json")


async def _found(http: web.Request) -> FileMeta:
    meta = await http.app[SERVICES].jobs.files.get(http[IDENTITY].tenant.name, http.match_info["id"])
    if meta is None:
        raise _not_there(http.match_info["id"])
    return meta


def _not_there(file_id: str) -> NotFound:
    return NotFound(f"There is no file {file_id[:100]!r}: it was deleted, has expired, or never was.", param="file_id")
