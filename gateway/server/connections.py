"""Clients' connections: what is bounded on them before a request is one, and what is told when it never becomes one.

    open ──first byte of a head──▶ head ──its last byte──▶ request ──answered──▶ idle ──▶ head …
      └─ nothing in `idle_s`: closed  └─ not whole in `HEAD_S`: 408                └─ nothing in `idle_s`: closed

aiohttp runs one timer for a connection that waits; a head that has begun only moves that. No read sets a timer.

Where a connection is idle and what comes is, byte for byte, a request that was a hit before, the answer is written at
once (`shortcut`): nothing is parsed, no task runs. Many clients send head and body apart: a head that began such a
request waits a moment for its body. Anything else goes to aiohttp as it came.

A client that closes its sending side has left: that it would still read cannot be told from a client that is gone, and
for one that is gone nothing may go on. What aiohttp refuses by itself, before any of our code runs, is told in the
URL's schema like all else.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import structlog
from aiohttp import web, web_response
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from aiohttp.web_server import Server

from gateway.errors import FirstdraftError, InternalError, InvalidHTTP
from gateway.server.error_shape import error_shape
from gateway.server.keys import SHORTCUT
from gateway.server.shortcut import HEAD_END, LONGEST, SERVER, Said, Shortcut

if TYPE_CHECKING:
    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.web_request import BaseRequest

HEAD_S = 10.0
"""Longest time between the first and the last byte of a request's head."""
_HEADERS_TOO_LARGE, _TIMEOUT, _EXPECTATION = 431, 408, 417
_LONGEST_REASON = 120
_BODY_S = 0.05
"""So long a head that was seen before waits for its body, before aiohttp gets it."""
_LOST = -1

# In place of the versions of Python and aiohttp, which are nobody's business; aiohttp has no setting for it.
web_response.SERVER_SOFTWARE = SERVER  # type: ignore[attr-defined]


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = (
        "_first_line",
        "_head_began",
        "_held",
        "_letting_go",
        "_owed",
        "_peer",
        "_said",
        "_said_in",
        "_shortcut",
    )

    _shortcut: Shortcut | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._head_began = False
        self._first_line = b""
        self._held = b""
        self._letting_go: asyncio.TimerHandle | None = None
        self._said = b""
        self._said_in: tuple[tuple[bytes, bytes], ...] | None = None
        self._owed = 0
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0] if isinstance(peer, tuple) else peer)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._letting_go is not None:
            self._letting_go.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in one read."""
        if not self._owed and not self._head_began and data:
            self._forget_said()
            if self._is_answered(data):
                return
            if self._held:
                data = self._let_go() + data
        self._take_in(data)

    def said(self, request: BaseRequest) -> Said | None:
        """All bytes of a request, head and body, where it is the newest of this connection, and not long."""
        is_whole = not self._owed and request.raw_headers is self._said_in
        return Said(self._peer, self._said) if is_whole else None

    def _is_answered(self, data: bytes) -> bool:
        """Whether nothing is left to do: it was a request that is known, or the head of one."""
        waiter, shortcut, transport = self._waiter, self._shortcut, self.transport
        is_idle = waiter is not None and not waiter.done() and not self._messages
        if not is_idle or shortcut is None or transport is None or self._paused or self._close or self._force_close:
            return False
        said = Said(self._peer, self._held + data if self._held else data)
        answer = shortcut.answer(said)
        if answer is not None:
            if self._held:
                self._let_go()
            transport.write(answer)
        elif not self._held and shortcut.begins(said):
            self._held = data
            self._letting_go = self._loop.call_later(_BODY_S, self._body_is_late)
        else:
            return False
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        return True

    def _let_go(self) -> bytes:
        """What was held back, which is held back no more."""
        if self._letting_go is not None:
            self._letting_go.cancel()
        held, self._held, self._letting_go = self._held, b"", None
        return held

    def _body_is_late(self) -> None:
        if self.transport is not None:
            self._take_in(self._let_go())

    def _take_in(self, data: bytes) -> None:
        before = len(self._messages)
        super().data_received(data)
        new = len(self._messages) - before
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._begin_head(data)
        elif new > 0:
            self._head_began = False
            if not isinstance(self._messages[-1][0], _ErrInfo):
                self._first_line = b""
            elif not self._first_line:
                self._first_line = data[:_LONGEST_REASON]
        if self._owed != _LOST and (data or new):  # aiohttp looks for more of what it has with an empty read
            self._count(data, new)

    def _count(self, data: bytes, new: int) -> None:
        """Know where the newest request ends, so that the first byte of the next one is known for what it is."""
        if not self._owed or self._said_in is not None:
            self._said += data
        if self._owed:
            self._owed -= len(data)
        elif new == 1:
            message = self._messages[-1][0]
            self._owed = _LOST if isinstance(message, _ErrInfo) else _still_to_come(message, self._said)
            self._said_in = None if isinstance(message, _ErrInfo) else message.raw_headers
        elif new or not self._head_began or len(self._said) > LONGEST:
            self._owed = _LOST
        if self._owed < 0:  # several at once, a long head in pieces, a body of no known length: not followed any more
            self._owed = _LOST
        if self._owed == _LOST or len(self._said) > LONGEST:
            self._forget_said()

    def _forget_said(self) -> None:
        self._said, self._said_in = b"", None

    def _begin_head(self, data: bytes) -> None:
        """A request's head has begun, and is not whole."""
        if self._head_began or not data:
            return
        self._head_began = True
        self._first_line = data[:_LONGEST_REASON]
        self._next_keepalive_close_time = self._loop.time() + HEAD_S
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    def _process_keepalive(self) -> None:
        waiter = self._waiter
        is_late = self._head_began and self._loop.time() >= self._next_keepalive_close_time
        if is_late and waiter is not None and not waiter.done() and not self._force_close:
            self._keepalive_handle = None
            self._head_began = False
            error = HttpProcessingError(code=_TIMEOUT, message=f"its head was not whole within {HEAD_S:g} s")
            self._messages.append((_ErrInfo(status=_TIMEOUT, exc=error, message=error.message), EMPTY_PAYLOAD))
            waiter.set_result(None)
        else:
            super()._process_keepalive()

    def eof_received(self) -> None:
        """The client has closed its side: what runs for it ends at once, even if it reads no more."""
        if self._request_in_progress and self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is told where no handler of ours could: for what is no HTTP, and for a fault around all of them."""
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun")
        if status >= InternalError.status:
            structlog.get_logger().error("internal_error", exc_info=exc)
            return self._told(request, InternalError("internal error"))
        if isinstance(exc, LineTooLong):
            status, message = _HEADERS_TOO_LARGE, "its head has a line that is too long"
        reason = (message or "").partition("\n")[0][:_LONGEST_REASON].rstrip(":. ") or "it cannot be read"
        structlog.get_logger().info("invalid_http", reason=reason, peer=request.remote)
        return self._told(request, InvalidHTTP(f"The request is not valid HTTP: {reason}.", status=status))

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response; one of aiohttp's own making in our words."""
        if isinstance(resp, web.HTTPException) and not resp.prepared and resp.status >= 400:
            reason = "only 100-continue can be expected" if resp.status == _EXPECTATION else resp.reason
            resp = self._told(request, InvalidHTTP(f"The request cannot be served: {reason}.", status=resp.status))
        if request.raw_headers is self._said_in:
            self._forget_said()  # an idle connection keeps nothing
        return await super().finish_response(request, resp, start_time)

    def _told(self, request: BaseRequest, error: FirstdraftError) -> web.Response:
        path = request.path
        if self._first_line:  # of a request that was never one: its URL, as far as it can be seen
            words = self._first_line.split(b"\r", 1)[0].split(b" ")
            path = words[1].decode("latin-1") if len(words) > 1 else path
        shape = error_shape(path, request.headers)
        request_id = f"req-{os.urandom(12).hex()}"
        response = web.Response(
            status=error.status,
            body=shape.encode(error, request_id),
            content_type="application/json",
            headers=dict.fromkeys(shape.id_headers, request_id),
        )
        response.force_close()
        return response


class _Connections(Server):
    """Makes a `Connection` for each client."""

    shortcut: Shortcut | None = None

    def __call__(self) -> RequestHandler:
        made = Connection(self, loop=self._loop, **self._kwargs)
        made._shortcut = self.shortcut  # noqa: SLF001 a friend: what aiohttp's handler is made with is aiohttp's to say
        return made


class Runner(web.AppRunner):
    """aiohttp's runner, with connections of ours."""

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        connections = _Connections(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,  # noqa: SLF001 aiohttp has no other way to bring a protocol of one's own
            **made._kwargs,  # noqa: SLF001 as above
        )
        connections.shortcut = self.app.get(SHORTCUT)
        return connections


def _still_to_come(message: RawRequestMessage, said: bytes) -> int:
    """How many bytes of a request's body have not come yet; `_LOST` where that cannot be told."""
    is_plain = not message.chunked and not message.upgrade and said[:1].isalpha()
    end = said.find(HEAD_END)
    if not is_plain or end < 0:
        return _LOST
    return end + len(HEAD_END) + int(message.headers.get("content-length", "0")) - len(said)
