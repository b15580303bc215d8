"""Packed bodies, unpacked in bounded pieces: what clients send, and answers of backends that pack unasked."""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

CODINGS = ("gzip", "deflate", "zstd")
"""What can be unpacked."""
_PIECE_BYTES = 256 * 1024
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
_MEMBER = b"\x1f"
"""What a gzip member begins with."""
_ZSTD_WINDOW_LOG = 23
"""8 MiB, the most that RFC 9659 lets a sender ask for: a frame could ask for gigabytes of memory."""


class ContentDecoder(Protocol):
    """Turns a read into pieces of the body."""

    @property
    def is_whole(self) -> bool:
        """The body came to its end, and nothing after it."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The body's bytes in `data`, in pieces of bounded size.

        Raises:
            zlib.error: `data` is not what the header says, whichever coding that is.
        """


class Identity:
    """No coding."""

    is_whole = True

    def pieces(self, data: bytes) -> Iterator[bytes]:
        yield data


class Inflater:
    """gzip and deflate. A piece has at most 256 KiB, so that a bomb is noticed by whoever counts them.

    A gzip body is a series of members (RFC 1952): some servers pack each event of a stream into one of its own.
    """

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_ZLIB_OR_GZIP)
        self._is_padded = False

    @property
    def is_whole(self) -> bool:
        return self._inflate.eof and not self._is_padded

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflate.eof:
                if not data.startswith(_MEMBER):
                    self._is_padded = True
                    return
                self._inflate = zlib.decompressobj(_ZLIB_OR_GZIP)
            piece = self._inflate.decompress(data, _PIECE_BYTES)
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if piece:
                yield piece


class Unzstd:
    """zstd, in pieces as with `Inflater`."""

    def __init__(self) -> None:
        # Loaded when it is first asked for: it takes 15 ms, and the start does not wait for what few clients send.
        self._zstd: Any = importlib.import_module(
            "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
        )
        options = {self._zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        self._decoder: Any = self._zstd.ZstdDecompressor(options=options)

    @property
    def is_whole(self) -> bool:
        return bool(self._decoder.eof) and not self._decoder.unused_data

    def pieces(self, data: bytes) -> Iterator[bytes]:
        try:
            while not self._decoder.eof and (data or not self._decoder.needs_input):
                piece = self._decoder.decompress(data, _PIECE_BYTES)
                data = b""
                if piece:
                    yield piece
        except self._zstd.ZstdError as error:
            raise zlib.error(str(error)) from None


def content_decoder(coding: str) -> ContentDecoder | None:
    """The decoder for a `content-encoding`; None for one that cannot be undone."""
    match coding.strip().lower():
        case "" | "identity":
            return Identity()
        case "gzip" | "x-gzip" | "deflate":
            return Inflater()
        case "zstd":
            return Unzstd()
        case _:
            return None
