"""Events to bytes on the socket, and the client that goes away.

The response begins with its first event, so that everything that fails before has a status of its own. Between events,
a comment is sent when nothing else was for a while; one task per worker does that for all streams (`keep_alive`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from aiohttp import web

from gateway.errors import ClientGone, FirstdraftError, ShuttingDown
from gateway.inference.events import Event, Idle
from gateway.wire.writers import StreamWriter

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
SILENCE_S = 10.0
"""A stream that had nothing to send for so long gets a comment: under every common proxy's idle limit (30 to 60 s)."""
_ERROR_WRITE_S = 1.0
"""Longest wait for a reader that does not read while there is only an error left to tell."""


class StreamReply:
    """The SSE response of one request. `encoder` and `headers` are called once, with the first event."""

    def __init__(
        self, http: web.Request, encoder: Callable[[], StreamWriter], headers: Callable[[], dict[str, str]]
    ) -> None:
        self._http = http
        self._make_encoder = encoder
        self._headers = headers
        self._encoder: StreamWriter | None = None
        self._response: web.StreamResponse | None = None
        self._beginning = asyncio.Lock()
        self._written_at = 0.0

    @property
    def begun(self) -> bool:
        """The status line has been sent: an error can only be told inside the stream."""
        return self._response is not None

    async def emit(self, event: Event) -> None:
        """Write one event; returns when the socket takes more.

        Raises:
            ClientGone: the connection is closed.
        """
        data = self.writer.encode(event)
        if data:
            await self._write(data)

    async def end(self) -> web.StreamResponse:
        """Write `[DONE]` and finish the response."""
        response = await self._write(self.writer.end())
        await self._guarded_eof(response)
        return response

    async def fail(self, error: FirstdraftError, request_id: str) -> web.StreamResponse:
        """Tell an error inside the stream, without `[DONE]`, and end it.

        The connection stays: a client that takes it for its next request must not find it closed.
        """
        response = self._response
        if response is None:
            message = "a stream that has not begun answers with a status"
            raise RuntimeError(message)
        if isinstance(error, ShuttingDown):
            response.force_close()
        try:
            async with asyncio.timeout(_ERROR_WRITE_S):
                await response.write(self.writer.error(error, request_id))
                await response.write_eof()
        except (TimeoutError, ConnectionError):
            if self._http.transport is not None:
                self._http.transport.abort()
        return response

    async def comment_if_silent(self, now: float) -> None:
        """Send a comment when nothing was sent for `SILENCE_S`; never waits for a slow reader."""
        transport = self._http.transport
        idle = self._response is not None and now - self._written_at >= SILENCE_S
        if idle and transport is not None and transport.get_write_buffer_size() == 0:
            await self._write(self.writer.encode(Idle()))

    @property
    def writer(self) -> StreamWriter:
        """What turns the answer's events into bytes; made at the first event."""
        if self._encoder is None:
            self._encoder = self._make_encoder()
        return self._encoder

    async def _write(self, data: bytes) -> web.StreamResponse:
        response = self._response or await self._begin()
        self._written_at = asyncio.get_running_loop().time()
        try:
            await response.write(data)
        except ConnectionError:
            raise ClientGone("the client closed the connection in mid-answer") from None
        return response

    async def _begin(self) -> web.StreamResponse:
        # A draft and a final can both come first: only one may send the headers, the other waits for them.
        async with self._beginning:
            if self._response is None:
                response = web.StreamResponse(headers=self._headers() | STREAM_HEADERS)
                try:
                    await response.prepare(self._http)
                except ConnectionError:
                    raise ClientGone("the client closed the connection before the answer began") from None
                self._response = response
            return self._response

    @staticmethod
    async def _guarded_eof(response: web.StreamResponse) -> None:
        try:
            await response.write_eof()
        except ConnectionError:
            raise ClientGone("the client closed the connection at the end of the answer") from None


class Streams:
    """The streams that are open in this worker, so that one task can keep all of them alive."""

    def __init__(self) -> None:
        self._open: set[StreamReply] = set()

    def add(self, reply: StreamReply) -> None:
        """Count a stream among the open ones."""
        self._open.add(reply)

    def discard(self, reply: StreamReply) -> None:
        """Forget a stream that is over."""
        self._open.discard(reply)

    async def keep_alive(self) -> None:
        """Send comments into silent streams, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SILENCE_S / 4)
            for reply in tuple(self._open):
                try:
                    await reply.comment_if_silent(loop.time())
                except ClientGone:
                    self._open.discard(reply)
                except Exception:  # noqa: BLE001 one stream's fault must not silence all others
                    structlog.get_logger().exception("keep_alive_failed")
                    self._open.discard(reply)
