"""`/healthz` (the process lives), `/readyz` (it can serve, with reasons) and `/metrics`."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from gateway.server.keys import SERVICES
from gateway.telemetry.metrics import CONTENT_TYPE


class State(msgspec.Struct):
    """How the gateway is: `alive`, `ready` or `not ready`; `/readyz` says it of each part, too."""

    status: str


async def alive(_http: web.Request) -> web.Response:
    """200 while the event loop turns."""
    return web.json_response({"status": "alive"})


async def ready(http: web.Request) -> web.Response:
    """200 when requests can be served, 503 until then; the body says of each part how it is and why."""
    readiness = await http.app[SERVICES].readiness()
    return web.json_response(readiness.body(), status=200 if readiness.ready else 503)


async def metrics(http: web.Request) -> web.Response:
    """Prometheus' text format, rendered off the event loop."""
    services = http.app[SERVICES]
    snapshot = await services.snapshot()
    body = await asyncio.to_thread(services.metrics.render, snapshot)
    return web.Response(body=body, headers={"content-type": CONTENT_TYPE})
