"""Who may use the admin surface: whoever has its key; without a key programs on this machine, and only they."""

from __future__ import annotations

import hmac
import re
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.errors import SettingsError, Unauthenticated
from gateway.server.identity import refuse_strangers
from gateway.settings import Settings, is_loopback
from gateway.tenants.keys import hash_key, presented_key

API = "/admin/v1/"
_SETTING = "--admin-key (FIRSTDRAFT_ADMIN_KEY)"
_SHORTEST_KEY = 20
"""Characters; a shorter one could be guessed."""
_MOST_BYTES = 4_096


def admin_key_hash(settings: Settings) -> str | None:
    """The SHA-256 of the admin key in hex; None: there is none.

    Raises:
        SettingsError: its file cannot be used, or there is none and other machines could reach the admin surface.
    """
    text = settings.admin_key
    if text is None:
        if settings.admin_port is not None and not is_loopback(settings.admin_host):
            message = (
                f"--admin-host (FIRSTDRAFT_ADMIN_HOST) {settings.admin_host} can be reached from other machines, and "
                f"there is no admin key: anyone could take the gateway over. Give it {_SETTING}, "
                "or let it listen on 127.0.0.1."
            )
            raise SettingsError(message)
        return None
    if not text.startswith("file:"):
        return text
    file = Path(text.removeprefix("file:"))
    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST_BYTES).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        raise SettingsError(f"{_SETTING}: {file} cannot be read: {reason}") from None
    if re.fullmatch("[0-9a-fA-F]{64}", content):
        return content.lower()
    if len(content) < _SHORTEST_KEY or any(sign.isspace() for sign in content):
        message = f"{_SETTING}: {file} holds no key of {_SHORTEST_KEY} characters or more, and no SHA-256 of one"
        raise SettingsError(message)
    return hash_key(content)


def authorize(digest: str | None, also: frozenset[str] = frozenset()) -> Middleware:
    """Let what brings the key with this hash through to the admin API, its metrics, and the paths `also`.

    The dashboard's pages hold no data, and need no key.
    """
    metrics = also | {"/admin/metrics"}

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(API) or request.path in metrics:
            _check(request, digest)
        return await handler(request)

    return check


def _check(request: web.Request, digest: str | None) -> None:
    if digest is None:
        refuse_strangers(request.headers)
        return
    key = presented_key(request.headers)
    if key is None or not hmac.compare_digest(hash_key(key), digest):
        raise Unauthenticated("The admin key is missing, or another: send it as 'authorization: Bearer KEY'.")
