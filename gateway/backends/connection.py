"""Requests to one backend over kept connections, and the one case in which a request is sent twice.

A kept connection may have been closed by the backend just as it was picked: the request is written, and the connection
ends without one byte of an answer. Then, and only then, it is sent again, on a fresh connection. aiohttp does not do
that for POST.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import weakref
from collections.abc import Callable, Mapping

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict
from yarl import URL

from gateway.backends.signing import signer_of
from gateway.inference.deployment import Backend, Secret

_KEEPALIVE_S = 30.0
_TCP_INFO_BYTES, _RTT_AT = 104, 68
"""How much of `struct tcp_info` is asked for, and where its smoothed round trip time stands (linux/tcp.h)."""
_MOST_CHECK_BYTES = 64 * 1024
_ANTHROPIC_VERSION = "2023-06-01"
"""Of the Messages API: the only one there is."""
_NO_LIMITS = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
"""`AttemptLimits` has them all under one timer; aiohttp would set several for each request and one for each read."""


class _Body(aiohttp.payload.Payload):
    """A request's body, which notices when it is written and to which connection."""

    _value: bytes
    _default_content_type = "application/json"

    def __init__(self, body: bytes, *, used: weakref.WeakSet[object], on_written: Callable[[], None]) -> None:
        super().__init__(body)
        self._size = len(body)
        self._used = used
        self._on_written = on_written
        self.was_used = False
        """The connection had carried a request before this one."""

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002 aiohttp passes it
        connection = writer.protocol  # type: ignore[attr-defined] # aiohttp's only writer has it, its interface does not
        self.was_used = connection in self._used
        self._used.add(connection)
        self._on_written()
        await writer.write(self._value)


class Connections:
    """The connections to one backend; made when they are first needed, in the loop that needs them."""

    def __init__(self, backend: Backend) -> None:
        self._base_url = str(URL(backend.base_url)).rstrip("/")  # its host and path as they go over the wire
        self._headers = CIMultiDict(
            {
                "content-type": "application/json",
                "accept": "text/event-stream, application/json",
                "accept-encoding": "identity",
                "user-agent": "firstdraft",
            }
        )
        if backend.type == "anthropic":
            self._headers["anthropic-version"] = _ANTHROPIC_VERSION
        if backend.api_key is not None:
            self._headers.update(_key_header(backend, backend.api_key))
        self._signer = signer_of(backend)
        self._forwards = backend.forward_headers
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._used: weakref.WeakSet[object] = weakref.WeakSet()

    async def post(
        self,
        body: bytes,
        path: str,
        *,
        traceparent: str | None,
        forwarded: Mapping[str, str],
        on_written: Callable[[], None],
        at_root: bool = False,
    ) -> aiohttp.ClientResponse:
        """Send `body` to `path` under the base URL; the response's head has come when this returns.

        `on_written` is called when a connection is there, and used. `at_root`: under the base URL without its `/v1`.

        Raises:
            aiohttp.ClientError, OSError: see `failures`.
        """
        # Encoded already: what is signed and what is sent have to be the same bytes.
        url = URL((self._base_url.removesuffix("/v1") if at_root else self._base_url) + path, encoded=True)
        headers = self._headers
        if traceparent is not None or forwarded or self._signer is not None:
            headers = headers.copy()
            headers.update({name: value for name, value in forwarded.items() if name in self._forwards})
            if traceparent is not None:
                headers["traceparent"] = traceparent
            if self._signer is not None:
                headers.update(await self._signer.headers(str(url), body))
        payload = _Body(body, used=self._used, on_written=on_written)
        try:
            return await self._send(self._pool(), url, payload, headers)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError) as error:
            if not payload.was_used or _was_answered(error):
                raise
        if self._fresh is None:
            self._fresh = _session(force_close=True)
        payload = _Body(body, used=self._used, on_written=on_written)
        return await self._send(self._fresh, url, payload, headers)

    async def _send(
        self, session: aiohttp.ClientSession, url: URL, payload: _Body, headers: CIMultiDict[str]
    ) -> aiohttp.ClientResponse:
        return await session.post(url, data=payload, headers=headers, allow_redirects=False)

    def _pool(self) -> aiohttp.ClientSession:
        if self._kept is None:
            self._kept = _session(force_close=False)
        return self._kept

    async def get(self, path: str) -> int:
        """The status of a GET of `path` on the backend's host.

        Raises:
            aiohttp.ClientError, OSError: see `failures`.
        """
        url = URL(self._base_url).with_path(path, encoded=True)
        async with self._pool().get(url, headers=self._headers, allow_redirects=False) as response:
            await response.content.read(_MOST_CHECK_BYTES)
            return response.status

    async def open_ahead(self, number: int) -> None:
        """Have so many idle connections at least: what requests do not wait for is DNS, TCP and TLS.

        Raises:
            aiohttp.ClientError, OSError: see `failures`.
        """
        connector, opened = self._pool().connector, list[aiohttp.connector.Connection]()
        if connector is None:
            return
        request = aiohttp.ClientRequest("GET", URL(self._base_url), loop=asyncio.get_running_loop())
        try:
            for _ in range(number):  # those that are kept already come first
                opened.append(await connector.connect(request, [], _NO_LIMITS))
        finally:
            for connection in opened:
                # One that the backend has closed meanwhile is no reason to fail a request.
                self._used.add(connection.protocol)
                connection.release()

    async def close(self) -> None:
        """End all connections, those in use too."""
        sessions, self._kept, self._fresh = (self._kept, self._fresh), None, None
        for session in sessions:
            if session is not None:
                await session.close()


def _key_header(backend: Backend, key: Secret) -> dict[str, str]:
    match backend.type:
        case "anthropic":
            return {"x-api-key": key.reveal()}
        case "azure":
            return {"api-key": key.reveal()}
        case _:
            return {"authorization": f"Bearer {key.reveal()}"}


def _session(*, force_close: bool) -> aiohttp.ClientSession:
    """Nothing from the environment (proxies, netrc), no cookies, no decompression, no timers of its own."""
    if force_close:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
    else:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=_NO_LIMITS,
        trust_env=False,
        auto_decompress=False,
    )


def round_trip_s(response: aiohttp.ClientResponse) -> float | None:
    """How long a round trip takes on the response's connection, as Linux measures it all along; None: not known."""
    transport = None if response.connection is None else response.connection.transport
    connected = None if transport is None else transport.get_extra_info("socket")
    if connected is None or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info: bytes = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    microseconds: int = struct.unpack_from("=I", info, _RTT_AT)[0] if len(info) == _TCP_INFO_BYTES else 0
    return microseconds / 1_000_000 or None


def _was_answered(error: Exception) -> bool:
    # When the connection ends inside the head of an answer, aiohttp puts what came of it in place of its sentence.
    return isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)
