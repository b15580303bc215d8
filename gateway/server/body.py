"""A request's body: read in bounded time, unpacked to a bounded size.

aiohttp's own unpacking is switched off (`run.listening`): it answers what it cannot unpack before any of our code runs,
in a shape that no SDK reads.
"""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import web

from gateway.backends.content_coding import CODINGS, ContentDecoder, Identity, content_decoder
from gateway.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding
from gateway.server.keys import SERVICES

_READ_S = 60.0
"""Longest time a client may take to send its body."""


async def read_body(request: web.Request) -> bytes:
    """The body as its sender wrote it.

    Raises:
        InvalidRequest: it did not come in time, was cut, or is not what `content-encoding` says.
        BodyTooLarge: it has, packed or unpacked, more bytes than the settings allow.
        UnsupportedEncoding: it is packed in a way that is not known here.
    """
    name = request.headers.get("content-encoding", "")
    decoder = content_decoder(name)
    if decoder is None:
        known = ", ".join(CODINGS)
        message = f"content-encoding {name[:40]!r} is not known here; send {known}, or the body as it is"
        raise UnsupportedEncoding(message, param="content-encoding")
    limit = request.app[SERVICES].settings.body_limit_bytes
    if request.content_length is not None and request.content_length > limit:
        raise BodyTooLarge(f"The request body is larger than this gateway's limit of {limit:,} bytes.")
    body = await _read(request)
    if isinstance(decoder, Identity):
        return body
    # In a thread: a few bytes may take a tenth of a second before they are known for too many.
    return await asyncio.to_thread(_unpacked, decoder, body, name, limit)


def _unpacked(decoder: ContentDecoder, body: bytes, name: str, limit: int) -> bytes:
    unpacked = bytearray()
    try:
        for piece in decoder.pieces(body):
            unpacked += piece
            if len(unpacked) > limit:
                message = f"The request body is larger, unpacked, than this gateway's limit of {limit:,} bytes."
                raise BodyTooLarge(message)
    except zlib.error:
        message = f"The request body is not what content-encoding {name[:40]!r} says."
        raise InvalidRequest(message, param="content-encoding") from None
    if not decoder.is_whole:
        message = f"The request body ends too early, or goes on after the end that its coding ({name[:40]}) says."
        raise InvalidRequest(message, param="content-encoding")
    return bytes(unpacked)


async def _read(request: web.Request) -> bytes:
    try:
        if request.content.is_eof():  # all of it is here: no time limit to be set up
            return await request.read()
        async with asyncio.timeout(_READ_S):
            return await request.read()
    except TimeoutError:
        message = f"The request body did not arrive within {_READ_S:.0f} s."
        raise InvalidRequest(message, code="request_timeout") from None
    except web.RequestPayloadError:
        raise InvalidRequest("The request body could not be read to its end. Check content-length.") from None
