"""A backend on bare sockets, for what an HTTP library would not let a server do: each connection plays a list of acts.

What a request gets is told by its model's name in `by_model`, once its body has come; `greeting` is played on every
connection before anything is read.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import struct
from socket import SO_LINGER, SOL_SOCKET
from typing import Literal, Self

import msgspec

Act = bytes | float | Literal["reset", "close", "hold"]
"""Bytes to write, seconds to wait, or how the connection ends. The end of the list closes it."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class RawUpstream:
    """The server, on a free port of the loopback while the context is open."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, greeting: tuple[Act, ...] | None = None) -> None:
        self.by_model: dict[str, tuple[Act, ...]] = {}
        self.asked: list[str] = []
        """The models that were asked for, one for each request."""
        self.open = 0
        """Connections."""
        self._tls = tls
        self._greeting = greeting
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, limit=1024 * 1024)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def base_url(self) -> str:
        assert self._server is not None
        scheme = "https" if self._tls is not None else "http"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            if self._greeting is not None:
                await _play(self._greeting, reader, writer)
            else:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length.group(1)) if length else 0)
                model = msgspec.json.decode(body)["model"]
                self.asked.append(model)
                await _play(self.by_model[model], reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


async def _play(acts: tuple[Act, ...], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Play the acts, until the client closes its side."""
    playing = asyncio.ensure_future(_acts(acts, writer))
    left = asyncio.ensure_future(reader.read())
    await asyncio.wait((playing, left), return_when=asyncio.FIRST_COMPLETED)
    for task in (playing, left):
        task.cancel()
    await asyncio.gather(playing, left, return_exceptions=True)


async def _acts(acts: tuple[Act, ...], writer: asyncio.StreamWriter) -> None:
    for act in acts:
        match act:
            case bytes():
                writer.write(act)
                await writer.drain()
            case "reset":
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                return
            case "close":
                return
            case "hold":
                await asyncio.sleep(3600)
            case _:
                await asyncio.sleep(act)
