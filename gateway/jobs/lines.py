"""An uploaded file, checked line by line as it comes, and cut into pieces that are worked off one by one. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from gateway.errors import BodyTooLarge, InvalidRequest
from gateway.wire.openai_files import BatchLine, decode_line

MOST_LINES = 50_000
LONGEST_LINE_BYTES = 8 * 1024 * 1024
_PIECE_LINES = 50
_PIECE_BYTES = 262_144


class Piece(msgspec.Struct, frozen=True):
    """Whole lines, next to each other."""

    data: bytes
    lines: int


class Lines:
    """Takes a file's bytes in any pieces. Empty lines are passed over."""

    def __init__(self, most_bytes: int) -> None:
        self.bytes = 0
        self.count = 0
        self.urls: set[str] = set()
        self._most_bytes = most_bytes
        self._seen: set[bytes] = set()
        self._rest = b""
        self._piece: list[bytes] = []
        self._piece_bytes = 0

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Take the next bytes; gives the pieces that are whole.

        Raises:
            InvalidRequest: a line is not one of a batch's, or its `custom_id` is not its own.
            BodyTooLarge: the file, a line, or the number of lines is over the limit.
        """
        self.bytes += len(data)
        if self.bytes > self._most_bytes:
            raise BodyTooLarge(f"The file is larger than {self._most_bytes:,} bytes.", param="file")
        *lines, self._rest = (self._rest + data).split(b"\n") if b"\n" in data else (self._rest + data,)
        if len(self._rest) > LONGEST_LINE_BYTES:
            raise BodyTooLarge(f"Line {self.count + 1} is longer than {LONGEST_LINE_BYTES:,} bytes.", param="file")
        for line in lines:
            yield from self._add(line)

    def end(self) -> Iterator[Piece]:
        """No more bytes; gives what is left.

        Raises:
            InvalidRequest: as `feed`; or there was no line at all.
        """
        yield from self._add(self._rest)
        self._rest = b""
        if not self.count:
            raise InvalidRequest("The file has no lines.", param="file", code="empty_file")
        if self._piece:
            yield self._cut()

    def _add(self, line: bytes) -> Iterator[Piece]:
        line = line.strip()
        if not line:
            return
        self.count += 1
        if self.count > MOST_LINES:
            raise BodyTooLarge(f"The file has more than {MOST_LINES:,} lines.", param="file")
        if len(line) > LONGEST_LINE_BYTES:
            raise BodyTooLarge(f"Line {self.count} is longer than {LONGEST_LINE_BYTES:,} bytes.", param="file")
        read = decode_line(line, self.count)
        mark = hashlib.blake2b(read.custom_id.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if mark in self._seen:
            message = f"Line {self.count}: the custom_id {read.custom_id[:60]!r} was there before."
            raise InvalidRequest(message, param="file", code="duplicate_custom_id")
        self._seen.add(mark)
        self.urls.add(read.url)
        self._piece.append(line)
        self._piece_bytes += len(line) + 1
        if len(self._piece) >= _PIECE_LINES or self._piece_bytes >= _PIECE_BYTES:
            yield self._cut()

    def _cut(self) -> Piece:
        piece = Piece(b"\n".join(self._piece) + b"\n", len(self._piece))
        self._piece, self._piece_bytes = [], 0
        return piece


def lines_of(piece: bytes, first: int) -> list[BatchLine]:
    """The lines of a piece; `first` is the number of its first line."""
    return [decode_line(line, first + index) for index, line in enumerate(piece.removesuffix(b"\n").split(b"\n"))]
