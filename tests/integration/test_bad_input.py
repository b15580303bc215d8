"""Hostile requests: each gets a 4xx in OpenAI's shape, and the gateway goes on."""

import asyncio
import gzip
import json
import zlib

import aiohttp
import pytest
from backports import zstd

from tests.gateway_fixture import policy_text

PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}
MESSAGE = {"role": "user", "content": "hi"}


@pytest.fixture
async def gateway(start_gateway, upstream):
    return await start_gateway(policy_text(upstream.base_url), edge=False, body_limit_bytes=1_000_000)


async def post(gateway, data, **headers):
    async with aiohttp.ClientSession() as session:
        response = await session.post(f"{gateway.base_url}/chat/completions", data=data, headers=gateway.auth | headers)
        return response.status, await response.json(), response.headers


BAD = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b"null", None),
    (b"\xff\xfe{}", None),
    (b'{"model": "large", "messages": [{"role": "user", "content": "\xff"}]}', None),
    (b'{"messages": [{"role":"user","content":"x"}]}', "model"),
    (b'{"model": 7, "messages": [{"role":"user","content":"x"}]}', "model"),
    (b'{"model": "large"}', "messages"),
    (b'{"model": "large", "messages": []}', "messages"),
    (b'{"model": "large", "messages": "hi"}', "messages"),
    (b'{"model": "large", "messages": [7]}', "messages[0]"),
    (b'{"model": "large", "messages": [{"role": 1, "content": "x"}]}', "messages[0].role"),
    (b'{"model": "large", "model": "small", "messages": [{"role":"user","content":"x"}]}', "model"),
    (b'{"model": "large", "messages": [{"role":"user","content":"x"}], "stream": "yes"}', "stream"),
    (b'{"model": "large", "messages": [{"role":"user","content":"x"}], "max_tokens": -1}', "max_tokens"),
    (b'{"model": "large", "messages": [{"role":"user","content":"x"}], "n": 1e9}', "n"),
    (b'{"model": "large", "messages": [{"role":"user","content":"x"}], "draft": "maybe"}', "draft"),
    (b"[" * 100_000, None),
    (b'{"model": "large", "messages": [{"role":"user","content":' + b"[" * 50_000 + b"]" * 50_000 + b"}]}", None),
]


@pytest.mark.parametrize(("data", "param"), BAD)
async def test_bad_bodies_are_refused_with_the_fields_name(gateway, upstream, data, param):
    """A 400 says which field is wrong; nothing reaches a backend; the next request is served."""
    status, answer, headers = await post(gateway, data)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["message"]
    if param is not None:
        assert answer["error"]["param"] == param
    assert headers["x-request-id"]
    assert upstream.requests == []
    good = json.dumps({"model": "large", "messages": [MESSAGE]})
    assert (await post(gateway, good))[0] == 200


async def test_a_body_over_the_limit_is_413(gateway):
    """50 MB are refused in OpenAI's shape, and the process lives."""
    status, answer, _ = await post(gateway, b" " * 50_000_000)
    assert (status, answer["error"]["code"]) == (413, "request_too_large")
    assert (await post(gateway, json.dumps({"model": "large", "messages": [MESSAGE]})))[0] == 200


async def test_a_compressed_bomb_is_413(gateway):
    """What a small body unpacks to counts, not what it weighs."""
    for coding, pack in PACKERS.items():
        status, answer, _ = await post(gateway, pack(b" " * 50_000_000), **{"content-encoding": coding})
        assert (status, answer["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("coding", PACKERS)
async def test_broken_compression_is_400(gateway, coding):
    """Bytes that are not what `content-encoding` says are the client's mistake."""
    status, answer, _ = await post(gateway, b"no gzip at all", **{"content-encoding": coding})
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("coding", PACKERS)
async def test_packed_bodies_that_are_cut_or_go_on_are_400(gateway, coding):
    """Half of a prompt is not taken for the whole, and what follows its end is not dropped in silence."""
    packed = PACKERS[coding](json.dumps({"model": "large", "messages": [MESSAGE]}).encode())
    for wrong in (packed[:-3], packed + b"more"):
        status, answer, _ = await post(gateway, wrong, **{"content-encoding": coding})
        assert (status, answer["error"]["param"]) == (400, "content-encoding")


async def test_a_frame_that_asks_for_much_memory_is_400(gateway):
    """A zstd window beyond 8 MiB is refused before anything is unpacked into it."""
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    status, _, _ = await post(gateway, packer.compress(b"{}") + packer.flush(), **{"content-encoding": "zstd"})
    assert status == 400


async def test_long_urls_and_many_headers_are_refused(gateway):
    """A URL or a header over 8 KB, and more than 128 headers, are the client's mistake; the next request is served."""
    port = int(gateway.url.rpartition(":")[2])
    many = "".join(f"x-{number}: 1\r\n" for number in range(200))
    for head in (
        f"GET /{'a' * 9_000} HTTP/1.1\r\n",
        f"GET / HTTP/1.1\r\nx: {'a' * 9_000}\r\n",
        f"GET / HTTP/1.1\r\n{many}",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}host: here\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(4_096), 5)
        assert answer.split()[1].startswith(b"4"), answer[:100]
        writer.close()
    assert (await post(gateway, json.dumps({"model": "large", "messages": [MESSAGE]})))[0] == 200


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "x"])
async def test_unknown_compression_is_415(gateway, coding):
    """A coding that is not known here is refused by name, in OpenAI's shape."""
    status, answer, _ = await post(gateway, b"{}", **{"content-encoding": coding})
    assert (status, answer["error"]["param"]) == (415, "content-encoding")


async def test_compressed_bodies_are_read(gateway):
    """Bodies in gzip, deflate and zstd are unpacked."""
    asking = json.dumps({"model": "large", "messages": [MESSAGE]}).encode()
    for coding, pack in PACKERS.items():
        status, _, _ = await post(gateway, pack(asking), **{"content-encoding": coding})
        assert status == 200


async def test_a_body_of_nothing_but_members_is_refused_quickly(start_gateway, upstream):
    """Reading a body must not keep all other requests waiting for seconds."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    many = b",".join([b'{"role":"user","content":"x"}'] * 500_000)
    status, answer, _ = await post(gateway, b'{"model":"large","messages":[' + many + b"]}")
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert "too many members" in answer["error"]["message"]


async def test_errors_carry_the_decision(gateway):
    """A refused request says under which policy and route it was refused."""
    asking = {"model": "large", "messages": [MESSAGE], "metadata": {"labels": "health"}}
    status, _, headers = await post(gateway, json.dumps(asking))
    assert status == 403
    assert headers["x-firstdraft-route"] == "chat"
    assert headers["x-firstdraft-policy"]


async def test_labels_sent_in_two_headers_both_count(gateway):
    """A proxy that adds a header line of its own must not hide the first one."""
    async with aiohttp.ClientSession() as session:
        headers = [*gateway.auth.items(), ("x-firstdraft-labels", "legal"), ("x-firstdraft-labels", "health")]
        asking = {"model": "large", "messages": [MESSAGE]}
        response = await session.post(f"{gateway.base_url}/chat/completions", json=asking, headers=headers)
        assert response.status == 403


@pytest.mark.parametrize(
    ("path", "words"),
    [("/chat/completions", "below /v1"), ("/v1/v1/messages", "leave it out"), ("/v1/chat", "GET /v1/models")],
)
async def test_a_wrong_base_url_is_told(gateway, path, words):
    """A client whose base URL lacks /v1, or has it twice, is told so."""
    async with aiohttp.ClientSession(headers=gateway.auth) as session:
        response = await session.post(f"{gateway.url}{path}", json={})
        assert response.status == 404
        assert words in (await response.json())["error"]["message"]


async def test_unknown_urls_and_methods_have_openais_shape(gateway):
    """404 and 405 are errors that SDKs can read."""
    async with aiohttp.ClientSession(headers=gateway.auth) as session:
        lost = await session.get(f"{gateway.base_url}/nothing")
        wrong = await session.get(f"{gateway.base_url}/chat/completions")
        assert (lost.status, (await lost.json())["error"]["code"]) == (404, "not_found")
        assert (wrong.status, (await wrong.json())["error"]["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize("name", ["x-firstdraft-labels", "x-firstdraft-feature", "x-firstdraft-draft"])
async def test_bad_headers_are_named(gateway, name):
    """A label or feature that is no name is refused: leaving it out could send data where it must not go."""
    status, answer, _ = await post(
        gateway, json.dumps({"model": "large", "messages": [MESSAGE]}), **{name: "../../etc, <b>"}
    )
    assert status == 400
    assert name in answer["error"]["message"] or answer["error"]["param"] == name


async def test_raw_garbage_on_the_socket_leaves_the_gateway_alone(gateway):
    """What is no HTTP is refused, and the next client is served."""
    negative = b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n"
    for garbage in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", negative):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        writer.write(garbage)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert (await post(gateway, json.dumps({"model": "large", "messages": [MESSAGE]})))[0] == 200


async def test_keys_never_reach_the_backend(gateway, upstream):
    """No header of the client's is forwarded, least of all its key."""
    await post(gateway, json.dumps({"model": "large", "messages": [MESSAGE]}), **{"x-secret": "1", "cookie": "a=b"})
    sent = upstream.requests[-1].headers
    assert sent["authorization"] == "Bearer sk-upstream"
    assert "x-secret" not in sent
    assert "cookie" not in sent
