"""The dashboard and the playground: files that need no key, and the one request that the playground makes.

The pages hold no data: what they show they ask the admin API for, with a key that is typed in once and kept in memory.
"""

from __future__ import annotations

import asyncio
from importlib import resources

import structlog
from aiohttp import web

from gateway.errors import NotFound
from gateway.server.api import chat
from gateway.server.keys import IDENTITY, POLICY, RECORD, SERVICES
from gateway.tenants.tenant import Identity

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".txt": "text/plain"}
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
_KEY = "playground"
"""What the log calls the key of the playground's requests."""


async def index(_http: web.Request) -> web.Response:
    """The dashboard."""
    return await _file("index.html")


async def to_index(_http: web.Request) -> web.Response:
    """Where the dashboard is, for who leaves out the end of its URL."""
    return web.Response(status=308, headers={"location": "/admin/"})


async def part(http: web.Request) -> web.Response:
    """A script or a style of the dashboard.

    Raises:
        NotFound: there is no such file.
    """
    return await _file(http.match_info["file"])


async def ask(http: web.Request) -> web.StreamResponse:
    """Answer a chat as a tenant would get it: under its policy, from its budget, as in its log.

    Raises:
        NotFound: there is no such tenant.
    """
    policy = http[POLICY] = http.app[SERVICES].policy.current
    name = http.query.get("tenant", policy.keyless_tenant or "")
    known = policy.tenants.get(name)
    if known is None:
        raise NotFound(f"There is no tenant {name[:64]!r}.", param="tenant")
    http[IDENTITY] = Identity(tenant=known.tenant, key=_KEY)
    record = http[RECORD]
    record.tenant, record.key = name, _KEY
    structlog.get_logger().info("admin_change", change="playground", tenant=name)
    return await chat.create(http)


async def _file(name: str) -> web.Response:
    ending = name[name.rfind(".") :]
    if "/" in name or name.startswith(".") or ending not in _TYPES:
        raise NotFound(f"There is no page {name[:64]!r}.")
    file = resources.files("gateway.server.admin") / "static" / name
    try:
        body = await asyncio.to_thread(file.read_bytes)
    except FileNotFoundError:
        raise NotFound(f"There is no page {name[:64]!r}.") from None
    return web.Response(body=body, content_type=_TYPES[ending], charset="utf-8", headers=_HEADERS)
