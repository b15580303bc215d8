"""The aiohttp application: middleware and routes. Nothing happens at import, nothing is opened here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from gateway.server.admin.access import admin_key_hash, authorize
from gateway.server.admin.routes import add_admin_routes
from gateway.server.api.health import metrics
from gateway.server.api.routes import SURFACES, add_routes
from gateway.server.cors import Cors
from gateway.server.keys import PROXIES, REPEATS, SERVICES, SHORTCUT, STREAMS
from gateway.server.middleware import authenticate, boundary
from gateway.server.proxies import Proxies
from gateway.server.repeats import Repeats
from gateway.server.shortcut import Shortcut
from gateway.server.streaming import Streams
from gateway.services import Services


def build_app(services: Services) -> web.Application:
    """Put the application together around services that are already open.

    Where there is an admin key and no port for it, the admin surface is part of it.
    """
    settings = services.settings
    has_admin = settings.admin_port is None and settings.admin_key is not None
    guards = (authorize(admin_key_hash(settings)),) if has_admin else ()
    cors = Cors(settings.cors_origins) if settings.cors_origins else None
    app = web.Application(
        middlewares=(*(() if cors is None else (cors.preflight,)), boundary, authenticate, *guards),
        client_max_size=settings.body_limit_bytes,
    )
    if cors is not None:
        app.on_response_prepare.append(cors.add_headers)
    app[SERVICES] = services
    app[PROXIES] = Proxies(settings.trusted_proxies)
    _add_answering(app)
    add_routes(app)
    if has_admin:
        add_admin_routes(app)
    return app


def build_admin_app(services: Services) -> web.Application:
    """The admin surface as an application of its own, for a port of its own."""
    app = web.Application(middlewares=(boundary, authorize(admin_key_hash(services.settings), frozenset({"/metrics"}))))
    app[SERVICES] = services
    app[PROXIES] = Proxies(services.settings.trusted_proxies)
    _add_answering(app)
    add_admin_routes(app)
    app.router.add_get("/metrics", metrics)
    return app


def _add_answering(app: web.Application) -> None:
    """What handlers that answer need beside the services."""
    app[STREAMS] = Streams()
    app[SHORTCUT] = Shortcut(app[SERVICES])
    app[REPEATS] = {surface.name: Repeats(surface.decode) for surface in SURFACES}
    app.cleanup_ctx.append(_keep_streams_alive)


async def _keep_streams_alive(app: web.Application) -> AsyncIterator[None]:
    keeping = asyncio.create_task(app[STREAMS].keep_alive(), name="keep streams alive")
    yield
    keeping.cancel()
    await asyncio.wait((keeping,))
