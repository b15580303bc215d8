"""Where the store is, as its URL says it.

    redis://[user:password@]host[:port][/db]            one server; rediss:// over TLS
    unix://[user:password@]/path[?db=0]                 one server on a Unix socket
    redis+sentinel://[user:password@]host[:port],…/service[/db]
                                                        the master that Sentinels name; ?sentinel_username=…&
                                                        sentinel_password=… where they want a login of their own
    redis+cluster://[user:password@]host[:port],…       a Cluster, found from any of its nodes

A master that was replaced may serve on until it is told so, about a second as seen from here. Where budgets must hold
even then, the servers need `min-replicas-to-write 1` (and two replicas, so that one may fail): a replaced master has no
replica any more, and refuses.

`rediss+sentinel://` and `rediss+cluster://` use TLS; its options (`ssl_ca_certs`, `ssl_cert_reqs`, …) are redis-py's.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from gateway.errors import SettingsError

_PORT = 6379
_SENTINEL_PORT = 26379
_NOT_A_PATH = frozenset("@?#%")


@dataclass(frozen=True, slots=True)
class Place:
    """One server: a Unix socket's path, or host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a connection says first; empty where nothing has to be said."""

    username: str = ""
    password: str = ""
    database: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A store's URL, understood. `shown` is the URL without passwords, for messages."""

    kind: Literal["server", "sentinel", "cluster"]
    places: tuple[Place, ...]
    """The server; or the Sentinels, or nodes, from which the rest is found."""
    login: Login
    sentinel_login: Login
    service: str
    tls: ssl.SSLContext | None
    shown: str


def read_address(url: str) -> Address:
    """Understand a URL. Raises SettingsError."""
    if url.startswith("unix:///") and not _NOT_A_PATH.intersection(url):
        return _on_socket(url)
    try:
        return _read(url)
    except (ValueError, OSError) as error:  # OSError: a certificate that is not there
        raise SettingsError(f"--redis-url (FIRSTDRAFT_REDIS_URL): {error}") from None


def _on_socket(url: str) -> Address:
    """A plain path, as the embedded store's, needs nothing of redis-py, which takes a tenth of the start to load."""
    place = Place(path=url.removeprefix("unix://"))
    return Address(
        kind="server", places=(place,), login=Login(), sentinel_login=Login(), service="", tls=None, shown=url
    )


def _read(url: str) -> Address:
    from redis.asyncio.connection import parse_url

    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    if kind not in {"", "sentinel", "cluster"}:
        raise ValueError(f"{parts.scheme}:// is no kind of store")
    login, _, hosts = parts.netloc.rpartition("@")
    shown = f"{parts.scheme}://{hosts}{parts.path}"
    service, path = "", parts.path
    if kind == "sentinel":
        service, _, database = parts.path.strip("/").partition("/")
        path = f"/{database}" if database else ""
        if not service:
            raise ValueError("the name of the service is missing: redis+sentinel://HOST:PORT,HOST:PORT/SERVICE")
    query = f"?{parts.query}" if parts.query else ""
    single = hosts if not kind else "localhost"
    given: dict[str, Any] = dict(parse_url(f"{scheme}://{login + '@' if login else ''}{single}{path}{query}"))
    port = _SENTINEL_PORT if kind == "sentinel" else _PORT
    places = _places(hosts, port) if kind else (_place(given),)
    words = parse_qs(parts.query)
    return Address(
        kind="sentinel" if kind == "sentinel" else "cluster" if kind == "cluster" else "server",
        places=places,
        login=Login(
            username=given.get("username") or "",
            password=given.get("password") or "",
            database=0 if kind == "cluster" else int(given.get("db") or 0),
        ),
        sentinel_login=Login(
            username=words.get("sentinel_username", [""])[0], password=words.get("sentinel_password", [""])[0]
        ),
        service=service,
        tls=_tls(given),
        shown=shown,
    )


def _place(given: dict[str, Any]) -> Place:
    if given.get("path"):
        return Place(path=given["path"])
    return Place(host=given.get("host") or "localhost", port=int(given.get("port") or _PORT))


def _places(hosts: str, port: int) -> tuple[Place, ...]:
    places = []
    for entry in hosts.split(","):
        parts = urlsplit(f"//{entry}")
        if not parts.hostname:
            raise ValueError("each of its servers has to be HOST or HOST:PORT, with commas between them")
        places.append(Place(host=parts.hostname, port=parts.port or port))
    return tuple(places)


def _tls(given: dict[str, Any]) -> ssl.SSLContext | None:
    from redis.asyncio.connection import SSLConnection

    if given.get("connection_class") is not SSLConnection:
        return None
    options = {name: value for name, value in given.items() if name.startswith("ssl_")}
    return SSLConnection(**options).ssl_context.get()
