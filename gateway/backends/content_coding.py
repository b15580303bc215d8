"""Compressed answers from backends that compress although they were asked not to: undone in bounded pieces."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

_PIECE_BYTES = 256 * 1024
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
_MEMBER = b"\x1f"
"""What a gzip member begins with."""


class ContentDecoder(Protocol):
    """Turns a read into pieces of the body."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The body's bytes in `data`, in pieces of bounded size.

        Raises:
            zlib.error: `data` is not what the header says.
        """


class Identity:
    """No coding."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        yield data


class Inflater:
    """gzip and deflate. A piece has at most 256 KiB, so that a bomb is noticed by whoever counts them.

    A gzip body is a series of members (RFC 1952): some servers pack each event of a stream into one of its own.
    """

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_ZLIB_OR_GZIP)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflate.eof:
                if not data.startswith(_MEMBER):
                    return  # padding after the end
                self._inflate = zlib.decompressobj(_ZLIB_OR_GZIP)
            piece = self._inflate.decompress(data, _PIECE_BYTES)
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if piece:
                yield piece


def content_decoder(coding: str) -> ContentDecoder | None:
    """The decoder for a `content-encoding`; None for one that cannot be undone."""
    match coding.strip().lower():
        case "" | "identity":
            return Identity()
        case "gzip" | "x-gzip" | "deflate":
            return Inflater()
        case _:
            return None
