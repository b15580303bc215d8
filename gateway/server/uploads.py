"""Reading an uploaded file from a multipart body as it comes: it is never in memory as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import msgspec
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.errors import InvalidRequest, UnsupportedEncoding
from gateway.jobs.files import KEPT_S, FileMeta, Upload
from gateway.server.keys import IDENTITY, SERVICES
from gateway.wire.openai_files import LEAST_LIFE_S, LONGEST_LIFE_S

_PIECE_BYTES = 65_536
_READ_S = 60.0
"""Longest time between two pieces of a body."""
_LONGEST_FIELD = 4_096
_LONGEST_NAME = 255
_MOST_DIGITS = 12
_PURPOSE = "batch"
_T = TypeVar("_T")


class _Form(msgspec.Struct):
    """The fields beside the file."""

    purpose: str = ""
    filename: str = ""
    life_s: int = KEPT_S
    has_file: bool = False


async def read_upload(http: web.Request) -> FileMeta:
    """Take in the file of a multipart body; where something is wrong, nothing of it is left.

    Raises:
        InvalidRequest: the body is no form with a file and its purpose, or a line of the file is wrong.
        BodyTooLarge: the file, a line of it, or all of the tenant's files together are over a limit.
    """
    if http.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedEncoding("Send files as they are, without content-encoding.", param="content-encoding")
    if http.content_type != "multipart/form-data":
        raise InvalidRequest("Send a form (multipart/form-data) with 'file' and 'purpose'.", param="file")
    upload = http.app[SERVICES].jobs.files.upload(http[IDENTITY].tenant.name)
    try:
        form = await _read(http, upload)
        return await upload.finish(form.filename, form.purpose, life_s=form.life_s)
    except BaseException:
        await upload.drop()
        raise


async def _read(http: web.Request, upload: Upload) -> _Form:
    form = _Form()
    async for part in _parts(http):
        match part.name:
            case "file" if not form.has_file:
                form.has_file = True
                form.filename = (part.filename or "file.jsonl")[:_LONGEST_NAME]
                while data := await _timely(part.read_chunk(_PIECE_BYTES)):
                    await upload.add(data)
            case "purpose":
                form.purpose = await _text(part)
                if form.purpose != _PURPOSE:
                    message = f"Files are kept here for batches alone: 'purpose' is {_PURPOSE!r}."
                    raise InvalidRequest(message, param="purpose")
            case "expires_after[anchor]":
                if await _text(part) != "created_at":
                    raise InvalidRequest("'expires_after[anchor]' is 'created_at'.", param="expires_after[anchor]")
            case "expires_after[seconds]":
                form.life_s = _life(await _text(part))
            case _:
                raise InvalidRequest(f"Unknown field {str(part.name)[:60]!r}, or a second file.", param="file")
    for field, is_there in (("file", form.has_file), ("purpose", bool(form.purpose))):
        if not is_there:
            raise InvalidRequest(f"The form has no {field!r}.", param=field)
    return form


async def _parts(http: web.Request) -> AsyncIterator[BodyPartReader]:
    try:
        reader = await http.multipart()
        while (part := await _timely(reader.next())) is not None:
            if not isinstance(part, BodyPartReader):
                raise InvalidRequest("A form inside the form is not read here.", param="file")
            yield part
    except HttpProcessingError:
        raise InvalidRequest(
            "The form could not be read: a header of one of its parts is none.", param="file"
        ) from None
    except (ValueError, AssertionError, RuntimeError, web.RequestPayloadError) as error:
        message = f"The form could not be read: {str(error)[:100] or 'it is cut'}."
        raise InvalidRequest(message, param="file") from None


async def _timely(reading: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(_READ_S):
            return await reading
    except TimeoutError:
        message = f"Nothing came of the request body for {_READ_S:.0f} s."
        raise InvalidRequest(message, code="request_timeout") from None


async def _text(part: BodyPartReader) -> str:
    data = bytearray()
    while piece := await _timely(part.read_chunk(_LONGEST_FIELD)):
        data += piece
        if len(data) > _LONGEST_FIELD:
            raise InvalidRequest(f"The field {part.name!r} is too long.", param=part.name)
    return data.decode("utf-8", "replace").strip()


def _life(text: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    if not is_number or not LEAST_LIFE_S <= int(text) <= LONGEST_LIFE_S:
        message = f"'expires_after[seconds]' is from {LEAST_LIFE_S:,} to {LONGEST_LIFE_S:,}."
        raise InvalidRequest(message, param="expires_after[seconds]")
    return int(text)
