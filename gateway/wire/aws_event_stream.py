"""AWS's event stream (application/vnd.amazon.eventstream), read from any split of the bytes.

A message, all numbers big-endian:

    total length u32 · headers' length u32 · CRC-32 of these 8 bytes u32 · headers · payload · CRC-32 of all before u32

A header is: name's length u8, name, type u8, value; of the types only strings (7: length u16, UTF-8) are kept. The
format is that of https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html.
"""

from __future__ import annotations

import binascii
import struct

import msgspec

MOST_MESSAGE_BYTES = 24 * 1024 * 1024
"""AWS's own limit is 16 MiB of payload and 128 KiB of headers."""
_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_STRING = 7
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Type of a header's value -> its length."""
_SIZED = {6, _STRING}


class Message(msgspec.Struct, frozen=True):
    """One message, its headers as far as they are strings."""

    headers: dict[str, str]
    payload: bytes


class EventStreamError(ValueError):
    """These bytes are no event stream; the message says why."""


class EventStreamDecoder:
    """Turns reads into messages."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that end in `data`.

        Raises:
            EventStreamError: a checksum or a length is wrong: nothing after it can be read.
        """
        self._held += data
        found: list[Message] = []
        while len(self._held) >= _PRELUDE.size:
            total, headers, checksum = _PRELUDE.unpack_from(self._held)
            if binascii.crc32(self._held[: _PRELUDE.size - _CRC.size]) != checksum:
                raise EventStreamError("the checksum of a message's lengths is wrong")
            if total > MOST_MESSAGE_BYTES or headers + _PRELUDE.size + _CRC.size > total:
                raise EventStreamError(f"a message of {total} bytes with {headers} of headers cannot be")
            if len(self._held) < total:
                break
            found.append(_message(bytes(self._held[:total]), headers))
            del self._held[:total]
        return found

    @property
    def is_between(self) -> bool:
        """No message has begun and not ended."""
        return not self._held


def _message(data: bytes, headers: int) -> Message:
    body, (checksum,) = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])
    if binascii.crc32(body) != checksum:
        raise EventStreamError("the checksum of a message is wrong")
    return Message(_headers(body[_PRELUDE.size : _PRELUDE.size + headers]), body[_PRELUDE.size + headers :])


def _headers(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            end = at + 1 + data[at]
            name, kind = data[at + 1 : end], data[end]
            at = end + 1
            if kind in _SIZED:
                length = int.from_bytes(data[at : at + 2], "big")
                at += 2
            else:
                length = _FIXED[kind]
            if at + length > len(data):
                raise EventStreamError("a header is longer than all headers")
            if kind == _STRING:
                found[name.decode()] = data[at : at + length].decode()
            at += length
    except (IndexError, KeyError, UnicodeDecodeError):
        raise EventStreamError("a header cannot be read") from None
    return found
