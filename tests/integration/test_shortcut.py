"""Hits that come again byte for byte: what they look like, and all that must send them the long way."""

import asyncio
import json
import re

import aiohttp
import pytest

from gateway.pipeline import Pipeline
from gateway.server.connections import Connection
from gateway.server.shortcut import Shortcut
from tests.gateway_fixture import KEY, OTHER_KEY, policy_text
from tests.upstream.script import Script

pytestmark = pytest.mark.store

ROUTE = "mode: cloud_only\n    models: [large]\n    cache: {ttl: 1h}"


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def taken(monkeypatch):
    """How often the short way was taken."""
    answers = []
    answer = Shortcut.answer

    def watched(self, said):
        response = answer(self, said)
        if response is not None:
            answers.append(response)
        return response

    monkeypatch.setattr(Shortcut, "answer", watched)
    return answers


@pytest.fixture
async def gateway(start_gateway, upstream):
    upstream.default = Script(chunks=4)
    return await start_gateway(policy_text(upstream.base_url, route=ROUTE), edge=False)


async def ask(http, gateway, *, stream=False, key=KEY, headers=None, text="Hi", path="chat/completions"):
    body = {"model": "large", "messages": [{"role": "user", "content": text}], "temperature": 0, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    auth = {"authorization": f"Bearer {key}", **(headers or {})}
    async with http.post(f"{gateway.base_url}/{path}", json=body, headers=auth) as response:
        return response.status, response.headers, await response.read()


def shown(headers):
    """Header names and values, but for those that differ from response to response, and how the body is framed."""
    left_out = {"x-request-id", "date", "age", "content-length", "transfer-encoding", "x-firstdraft-deployment"}
    return {name.lower(): value for name, value in headers.items() if name.lower() not in left_out}


@pytest.mark.parametrize("stream", [True, False])
async def test_it_looks_like_any_other_hit(gateway, http, upstream, taken, stream):
    """Status, headers, bytes: as on the long way; each response has an id of its own, in the log as well."""
    long_way = [await ask(http, gateway, stream=stream) for _ in range(2)]
    assert taken == []
    short = [await ask(http, gateway, stream=stream) for _ in range(2)]
    assert len(taken) == 2
    assert {body for _, _, body in (*long_way, *short)} == {long_way[0][2]}
    assert [shown(headers) for _, headers, _ in short] == [shown(long_way[1][1])] * 2
    ids = [headers["x-request-id"] for _, headers, _ in (*long_way, *short)]
    assert len(set(ids)) == 4
    async with http.get(f"{gateway.base_url}/firstdraft/usage?request={ids[3]}", headers=gateway.auth) as response:
        last = (await response.json())["last"]
    assert (last["cache"], last["status"], last["route"], last["tenant"]) == ("hit", 200, "chat", "acme")
    assert "attempts" not in last
    assert len(upstream.requests) == 1


async def test_it_is_counted(gateway, http):
    """Metrics count these hits, and no request stays in flight."""
    for _ in range(5):
        await ask(http, gateway)
    async with http.get(f"{gateway.url}/metrics") as response:
        text = await response.text()
    assert 'firstdraft_cache_total{result="hit",route="chat"} 4.0' in text
    assert re.search(r"^firstdraft_requests_in_flight 0\.0$", text, re.MULTILINE)


async def test_another_key_goes_its_own_way(gateway, http, taken):
    """A tenant's short way is not another's, and a wrong key gets 401, not an answer."""
    for _ in range(3):
        await ask(http, gateway)
    assert len(taken) == 1
    assert (await ask(http, gateway, key=OTHER_KEY))[1]["x-firstdraft-cache"] == "miss"
    assert (await ask(http, gateway, key="fd-nobody-000000000000000000000000000000000000"))[0] == 401
    assert len(taken) == 1


@pytest.mark.parametrize(
    "headers",
    [{"cache-control": "no-cache"}, {"cache-control": "max-age=100"}, {"x-firstdraft-labels": "internal"}],
    ids=str,
)
async def test_another_header_is_another_request(gateway, http, taken, headers):
    """Whatever a client says in a header is looked at, every time."""
    for _ in range(3):
        await ask(http, gateway)
    for _ in range(2):
        await ask(http, gateway, headers={"cache-control": "no-cache"})
    for _ in range(3):
        await ask(http, gateway, headers=headers)
    assert len(taken) == (1 if "cache-control" in headers else 2)


async def test_a_new_policy_is_asked(gateway, http, taken):
    """A key that policy takes away stops working with the policy, short way or not."""
    for _ in range(3):
        await ask(http, gateway)
    file = gateway.policies / "policy.yaml"
    file.write_text(file.read_text().replace("name: prod", "name: renamed", 1).replace("cache: {ttl: 1h}", ""))
    async with asyncio.timeout(10):
        while (await ask(http, gateway))[1]["x-firstdraft-cache"] != "bypass":
            await asyncio.sleep(0.05)
    before = len(taken)
    await ask(http, gateway)
    assert len(taken) == before


async def test_an_answer_that_was_replaced(gateway, http, upstream, taken):
    """When the cache has another answer, that one is given."""
    for _ in range(3):
        await ask(http, gateway)
    upstream.default = Script(text="Something new.")
    await ask(http, gateway, headers={"cache-control": "no-cache"})
    _, headers, body = await ask(http, gateway)
    assert headers["x-firstdraft-cache"] == "hit"
    assert json.loads(body)["choices"][0]["message"]["content"] == "Something new."


async def test_a_decision_that_comes_out_otherwise(start_gateway, upstream, http, taken, monkeypatch):
    """The decision is made anew from the facts of the moment: when it is another, it is followed."""
    text = policy_text(upstream.base_url, route=ROUTE).replace(
        "  - name: chat\n",
        "  - name: night\n    when: request.hour == 3\n    mode: cloud_only\n    models: [large]\n  - name: chat\n",
    )
    gateway = await start_gateway(text, edge=False)
    hour = 2
    facts = Pipeline._facts

    def at_that_hour(self, *arguments):
        import msgspec

        return msgspec.structs.replace(facts(self, *arguments), hour=hour)

    monkeypatch.setattr(Pipeline, "_facts", at_that_hour)
    for _ in range(3):
        assert (await ask(http, gateway))[1]["x-firstdraft-route"] == "chat"
    assert len(taken) == 1
    hour = 3
    await asyncio.sleep(0.06)
    assert (await ask(http, gateway))[1]["x-firstdraft-route"] == "night"
    assert len(taken) == 1


@pytest.mark.parametrize("cache", ["{ttl: 1h, charge: 0.5}", "{ttl: 1s, stale: 1m}"])
async def test_what_depends_on_more_goes_the_long_way(start_gateway, upstream, http, taken, cache):
    """Answers that are booked each time, or that are stale, are never short."""
    gateway = await start_gateway(policy_text(upstream.base_url, route=ROUTE.replace("{ttl: 1h}", cache)), edge=False)
    await ask(http, gateway)
    if "stale" in cache:
        await asyncio.sleep(1.1)
        assert (await ask(http, gateway))[1]["x-firstdraft-cache"] == "stale"
    else:
        for _ in range(3):
            assert (await ask(http, gateway))[1]["x-firstdraft-cache"] == "hit"
    assert taken == []


async def test_a_gateway_that_drains_takes_nothing(gateway, http, taken):
    """Shutting down, it refuses these requests as all others."""
    for _ in range(3):
        await ask(http, gateway)
    gateway.services.draining = True
    try:
        assert (await ask(http, gateway))[0] == 503
    finally:
        gateway.services.draining = False


async def test_memory_is_bounded(gateway, http, monkeypatch):
    """The least recently used are forgotten beyond a number of bytes."""
    from gateway.server import shortcut

    monkeypatch.setattr(shortcut, "_MOST_BYTES", 30_000)
    kept = []
    remember = Shortcut.remember

    def watched(self, *arguments):
        remember(self, *arguments)
        kept.append((len(self._known), self._bytes))

    monkeypatch.setattr(Shortcut, "remember", watched)
    for number in range(12):
        for _ in range(2):
            await ask(http, gateway, text=f"prompt {number}")
    assert max(size for _, size in kept) <= 30_000
    assert 1 < kept[-1][0] < 12


def raw(text="Hi", key=KEY):
    """A request as a client writes it, in two pieces: head and body."""
    fields = {"model": "large", "messages": [{"role": "user", "content": text}], "temperature": 0}
    body = json.dumps(fields).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


class Line:
    """A connection to a gateway."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces, pause_s=0.01):
        """Write pieces so that each is read by itself."""
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(pause_s)
            self._writer.write(piece)
            await self._writer.drain()

    async def response(self):
        """Status, head and body of the next response."""
        async with asyncio.timeout(10):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
            return int(head.split()[1]), head, await self._reader.readexactly(length)


@pytest.fixture
async def line(gateway):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
    yield Line(reader, writer)
    writer.close()
    await writer.wait_closed()


async def ask_raw(line, *pieces, times=1):
    got = []
    for _ in range(times):
        await line.send(*pieces)
        got.append(await line.response())
    return got


async def test_head_and_body_apart(line, taken):
    """Most clients send them so; it is the same request, and the same short way."""
    head, body = raw()
    answers = await ask_raw(line, head, body, times=4)
    answers += await ask_raw(line, head + body, times=2)
    assert len(taken) == 4
    assert {(status, answer) for status, _, answer in answers} == {(200, answers[0][2])}


async def test_a_known_head_with_another_body(line, taken, upstream):
    """What waited for its body is answered by what the whole request says."""
    head, body = raw("Hi")
    await ask_raw(line, head, body, times=3)
    other = body.replace(b"Hi", b"Ho")
    for pieces in ((head, other), (head, other[:20], other[20:])):
        status, shown, _ = (await ask_raw(line, *pieces))[0]
        assert status == 200
        assert b"x-firstdraft-cache: hit" in shown or len(upstream.requests) == 2
    assert len(taken) == 1
    assert json.loads(upstream.requests[-1].body)["messages"][0]["content"] == "Ho"


async def test_a_known_head_whose_body_is_late(line, taken):
    """It waits for a moment only, and then is a request as any other."""
    head, body = raw()
    await ask_raw(line, head, body, times=3)
    await line.send(head, body, pause_s=0.3)
    assert (await line.response())[0] == 200
    assert len(taken) == 1
    await ask_raw(line, head, body)
    assert len(taken) == 2


async def test_the_end_of_a_long_request_is_no_request(gateway, line, taken):
    """What is not kept from its first byte on is not kept at all: its last bytes alone ask for nothing."""
    head, body = raw()
    first, *lines = head.split(b"\r\n", 1)
    padding = b"".join(b"\r\nx-pad-%d: %b" % (number, b"x" * 7_000) for number in range(4))
    whole = first + padding + b"\r\n" + lines[0] + body
    cut = len(whole) - len(lines[0]) - len(body)
    for pieces in ((whole[:cut], whole[cut:]), (whole,)):
        assert {status for status, _, _ in await ask_raw(line, *pieces, times=4)} == {200}
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
    assert (await ask_raw(Line(reader, writer), whole[cut:]))[0][0] == 400
    assert taken == []
    writer.close()
    await writer.wait_closed()


async def test_several_requests_at_once(line, taken):
    """Pipelined requests are answered one by one, in their order, each with what it asked for."""
    first, second = b"".join(raw("one")), b"".join(raw("two"))
    bodies = [(await ask_raw(line, whole, times=3))[-1][2] for whole in (first, second)]
    before = len(taken)
    assert before == 2
    await line.send(first + second + first)
    assert [(await line.response())[2] for _ in range(3)] == [bodies[0], bodies[1], bodies[0]]
    await line.send(first + second[:40], second[40:])
    assert [(await line.response())[2] for _ in range(2)] == bodies
    await line.send(first)
    assert (await line.response())[2] == bodies[0]
    assert len(taken) == before


async def test_a_request_while_another_runs(line, taken, upstream):
    """An answer is never kept under the bytes of the request that came after it."""
    slow, quick = b"".join(raw("slow")), b"".join(raw("quick"))
    upstream.default = Script(text="Slow.", think_s=0.3)
    await line.send(slow, quick, pause_s=0.1)
    said = [(await line.response())[2] for _ in range(2)]
    for _ in range(3):
        assert [(await ask_raw(line, whole))[0][2] for whole in (slow, quick)] == said


async def test_an_invalid_request_after_hits(line, taken):
    """It is refused as ever, and in the URL's schema."""
    head, body = raw()
    await ask_raw(line, head, body, times=3)
    await line.send(head.replace(b"HTTP/1.1", b"HTTP/x") + body)
    status, _, answer = await line.response()
    assert status == 400
    assert json.loads(answer)["error"]["code"] == "invalid_http"


async def test_a_client_that_does_not_read(gateway, taken, monkeypatch):
    """Who asks on without reading is answered when it reads: what waits for it stays small."""
    made = []
    connection_made = Connection.connection_made

    def watched(self, transport):
        made.append(self)
        connection_made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", watched)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
    line, whole = Line(reader, writer), b"".join(raw())
    await ask_raw(line, whole, times=3)
    made[-1].pause_writing()
    await line.send(whole, whole)
    await asyncio.sleep(0.2)
    assert len(taken) == 1
    made[-1].resume_writing()
    assert [(await line.response())[0] for _ in range(2)] == [200, 200]
    writer.close()
    await writer.wait_closed()
