"""One connection of a worker to the edge, as an asyncio protocol: bytes in, frames out of it, frames in, bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from gateway.edge.protocol import BadFrame, FrameReader, FrameWriter, FromEdge, ToEdge


class Link(asyncio.Protocol):
    """Hands each frame to `received`, and calls `lost` once, when the connection ends for whatever reason."""

    def __init__(self, received: Callable[[FromEdge], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost
        self._reader = FrameReader.at_worker()
        self._writer = FrameWriter()
        self._transport: asyncio.Transport | None = None
        self.closed = asyncio.Event()

    def send(self, frame: ToEdge) -> None:
        """Queues one frame; does nothing when the connection has ended. Raises BadFrame for what cannot be encoded."""
        data = self._writer.encode(frame)
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._received(frame)
        except BadFrame:
            self.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self.closed.set()
        self._lost()
