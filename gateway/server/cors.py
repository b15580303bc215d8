"""Cross-origin requests: pages of the origins that settings name may call the gateway from a browser.

Credentials are never allowed: a browser then sends no cookies, and what a page knows it has to know itself (its key).
So an answer that any origin may read (`*`) gives nothing away that the caller did not bring.
"""

from __future__ import annotations

import re

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

EXPOSED = (
    "age",
    "location",
    "request-id",
    "retry-after",
    "www-authenticate",
    "x-firstdraft-budget",
    "x-firstdraft-budget-warning",
    "x-firstdraft-cache",
    "x-firstdraft-cascade",
    "x-firstdraft-deployment",
    "x-firstdraft-dropped",
    "x-firstdraft-mode",
    "x-firstdraft-no-draft",
    "x-firstdraft-policy",
    "x-firstdraft-retrieval",
    "x-firstdraft-route",
    "x-firstdraft-sources",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-request-id",
    "x-should-retry",
)
"""Response headers that a page may read; browsers hide all others."""
_METHODS = "GET, POST, DELETE, OPTIONS"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9-]{1,64}( *, *[A-Za-z0-9-]{1,64}){0,63}")
_REMEMBERED_S = 7_200
"""How long a browser may remember what a preflight said; Chrome takes no more."""


class Cors:
    """What pages of which origins may do. `origins` are as browsers write them, or `*` alone."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = frozenset(origins)
        self._any = "*" in self._origins
        self._exposed = ", ".join(EXPOSED)

    def allowed(self, request: web.Request) -> str | None:
        """What `access-control-allow-origin` says to this request; None: nothing."""
        origin = request.headers.get("origin")
        if origin is None:
            return None
        if self._any:
            return "*"
        return origin if origin in self._origins else None

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let the page read the answer, whatever it is. A signal: called before any response is sent."""
        if not self._any:
            vary = response.headers.get("vary")
            response.headers["vary"] = f"{vary}, origin" if vary else "origin"
        allowed = self.allowed(request)
        if allowed is not None:
            response.headers["access-control-allow-origin"] = allowed
            response.headers["access-control-expose-headers"] = self._exposed

    @property
    def preflight(self) -> Middleware:
        """The middleware that answers what browsers ask before they send the request itself."""

        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.method != "OPTIONS" or "access-control-request-method" not in request.headers:
                return await handler(request)
            if self.allowed(request) is None:
                return web.Response(status=403)
            headers = {"access-control-allow-methods": _METHODS, "access-control-max-age": str(_REMEMBERED_S)}
            asked = request.headers.get("access-control-request-headers", "").strip()
            if _HEADER_NAMES.fullmatch(asked):
                headers["access-control-allow-headers"] = asked
            return web.Response(status=204, headers=headers)

        return answer
