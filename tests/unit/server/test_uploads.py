"""Forms with files."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request

from gateway.errors import InvalidRequest
from gateway.server.uploads import _life, _parts


@pytest.mark.parametrize("text", ["000000086400" + "9" * 50, "9" * 4_096, "3599", "2592001", "-1", "٣٦٠٠", ""])
def test_a_life_that_is_too_long_is_refused_however_it_is_written(text: str) -> None:
    """A number is looked at whole."""
    with pytest.raises(InvalidRequest):
        _life(text)
    assert _life("86400") == 86_400


@pytest.mark.parametrize("head", [b"no header", b"a: " + b"x" * 9_000, b"a: b\r\n" * 500])
async def test_a_part_whose_head_is_none_is_the_clients_mistake(head: bytes) -> None:
    """What the client wrote wrong is told as such, and is no fault of the gateway's."""
    loop = asyncio.get_running_loop()
    content = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    content.feed_data(b"--b\r\n" + head + b"\r\n\r\nx\r\n--b--\r\n")
    content.feed_eof()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    http: web.Request = make_mocked_request("POST", "/v1/files", headers=headers, payload=content)
    with pytest.raises(InvalidRequest):
        _ = [part async for part in _parts(http)]
