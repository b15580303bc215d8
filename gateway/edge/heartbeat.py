"""Tells whether the edge process is alive: a connection of its own that pings once a second."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from gateway.edge.protocol import VERSION, BadFrame, FrameReader, FrameWriter, FromEdge, Hello, Ping, Pong

_INTERVAL_S = 1.0
_RETRY_S = 0.1
_READ_BYTES = 65_536


class Silent(Exception):
    """No sign of life for too long, or a step that never ends."""


class Heartbeat:
    """Watches whatever process listens on the socket."""

    def __init__(self, socket_path: Path, *, silence_s: float, longest_step_s: float) -> None:
        self._socket_path = socket_path
        self._silence_s = silence_s
        self._longest_step_s = longest_step_s
        self._heard_s = time.monotonic()

    async def watch(self) -> None:
        """Until cancelled. Raises Silent when the process hangs; one that cannot be reached for long hangs, too."""
        self._heard_s = time.monotonic()
        while True:
            try:
                async with asyncio.timeout_at(self._deadline()):
                    reader, writer = await asyncio.open_unix_connection(self._socket_path)
                try:
                    await self._ping(reader, writer)
                finally:
                    writer.transport.abort()
            except (OSError, BadFrame):
                self._check_silence()
                await asyncio.sleep(_RETRY_S)

    def _deadline(self) -> float:
        remaining = self._silence_s - (time.monotonic() - self._heard_s)
        return asyncio.get_running_loop().time() + max(remaining, 0.0)

    def _check_silence(self) -> None:
        if time.monotonic() - self._heard_s > self._silence_s:
            raise Silent(f"no sign of life for {self._silence_s:g} s")

    async def _ping(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames, pongs = FrameWriter(), FrameReader.at_worker()
        writer.write(frames.encode(Hello(VERSION)))
        number = 0
        while True:
            number += 1
            writer.write(frames.encode(Ping(number)))
            try:
                async with asyncio.timeout(self._silence_s):
                    pong = await _pong(reader, pongs, number)
            except TimeoutError as error:
                raise Silent(f"no sign of life for {self._silence_s:g} s") from error
            self._heard_s = time.monotonic()
            if pong.step_age_s > self._longest_step_s:
                raise Silent(f"one step of decoding has taken {pong.step_age_s:.1f} s")
            await asyncio.sleep(_INTERVAL_S)


async def _pong(reader: asyncio.StreamReader, frames: FrameReader[FromEdge], number: int) -> Pong:
    """Reads until the answer to this ping is there."""
    while data := await reader.read(_READ_BYTES):
        for frame in frames.feed(data):
            if isinstance(frame, Pong) and frame.id == number:
                return frame
    raise ConnectionResetError("the edge closed the heartbeat's connection")
