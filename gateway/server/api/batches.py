"""`/v1/batches`: many requests at once, answered when there is time for them."""

from __future__ import annotations

from aiohttp import web

from gateway.errors import NotFound
from gateway.exchange import checked_feature
from gateway.jobs.batches import batch_name
from gateway.jobs.news import CANCELLED
from gateway.server.body import read_body
from gateway.server.keys import IDENTITY, SERVICES
from gateway.server.later import who_asks
from gateway.server.pages import limit_of, wanted_of
from gateway.server.said import said_feature
from gateway.wire.openai_files import BatchObject, decode_batch, encode_object, encode_page

_MOST = 100


async def create(http: web.Request) -> web.Response:
    """Begin a batch of an uploaded file.

    Raises:
        NotFound: this tenant has no such file, or no longer.
        InvalidRequest: its lines ask for another endpoint.
    """
    jobs, tenant = http.app[SERVICES].jobs, http[IDENTITY].tenant.name
    wanted = decode_batch(await read_body(http))
    feature = checked_feature(said_feature(http))
    file = await jobs.files.get(tenant, wanted.input_file_id)
    if file is None or file.of_batch:
        message = f"There is no uploaded file {wanted.input_file_id[:100]!r}: it was deleted, or has expired."
        raise NotFound(message, param="input_file_id")
    batch = await jobs.batches.create(who_asks(http, feature), wanted, file)
    return web.Response(body=encode_object(batch), content_type="application/json")


async def list_all(http: web.Request) -> web.Response:
    """The tenant's batches, the newest first."""
    batches, tenant = http.app[SERVICES].jobs.batches, http[IDENTITY].tenant.name
    limit = limit_of(http, default=20, most=_MOST)
    ids = wanted_of(http, await batches.ids(tenant))
    found: list[BatchObject] = []
    gone: list[str] = []
    while ids and len(found) <= limit:
        batch_id = ids.pop(0)
        batch = await batches.get(tenant, batch_id)
        if batch is None:
            gone.append(batch_id)
        else:
            found.append(batch)
    await batches.forget(tenant, gone)
    return web.Response(body=encode_page(found[:limit], has_more=len(found) > limit), content_type="application/json")


async def get(http: web.Request) -> web.Response:
    """How far a batch is.

    Raises:
        NotFound: this tenant has no such batch, or no longer.
    """
    batch = await http.app[SERVICES].jobs.batches.get(http[IDENTITY].tenant.name, http.match_info["id"])
    if batch is None:
        raise _not_there(http)
    return web.Response(body=encode_object(batch), content_type="application/json")


async def cancel(http: web.Request) -> web.Response:
    """End a batch; what is answered by then stays.

    Raises:
        NotFound: this tenant has no such batch, or no longer.
    """
    jobs, tenant, batch_id = http.app[SERVICES].jobs, http[IDENTITY].tenant.name, http.match_info["id"]
    batch = await jobs.batches.cancel(tenant, batch_id)
    if batch is None:
        raise _not_there(http)
    await jobs.later.news.tell(CANCELLED, batch_name(tenant, batch_id))
    return web.Response(body=encode_object(batch), content_type="application/json")


def _not_there(http: web.Request) -> NotFound:
    batch_id = http.match_info["id"][:100]
    return NotFound(f"There is no batch {batch_id!r}, or no longer.", param="batch_id")
