"""OpenAIBackend against a real server that answers as it should."""

import asyncio
import json
import time

import pytest

from gateway.backends.openai import OpenAIBackend
from gateway.errors import BackendUnreachable
from gateway.inference.events import Relayed, UsageReported, WholeAnswer
from gateway.inference.usage import Usage
from tests.unit.backends.asking import Taken, ask, call_for, deployment_at
from tests.upstream.script import Script


async def test_stream_is_relayed_and_its_usage_reported_last(scripted, client, deployment):
    """A stream becomes Relayed events with the whole text, a finish reason once, and the usage at the end."""
    call = call_for(deployment)
    taken = await ask(client, call)
    relayed = [event for event in taken.events if isinstance(event, Relayed)]
    assert taken.text == scripted.default.text
    assert [event.finish_reason for event in relayed if event.finish_reason] == ["stop"]
    assert isinstance(taken.events[-1], UsageReported)
    assert taken.events[-1].usage.input_tokens == 11
    assert b"[DONE]" not in taken.data


async def test_plain_answer_is_passed_byte_for_byte(scripted, client, deployment):
    """A whole answer is the backend's body as it came, unknown members included."""
    body = b'{ "id":"x", "choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}], "new": {"a" : 1} }'
    scripted.queue.append(Script(body=body))
    taken = await ask(client, call_for(deployment, stream=False))
    assert taken.events == [WholeAnswer(body=body, text="hi", finish_reason="stop", usage=None)]


async def test_request_has_the_backends_model_key_limit_and_unknown_fields(scripted, client, deployment):
    """The backend gets its own model name and key, the clamped limit, and every field the gateway does not know."""
    await ask(client, call_for(deployment, max_tokens=7, top_k=3, draft="frames", stream_options={"x": 1}))
    received = scripted.requests[0]
    assert received.path == "/v1/chat/completions"
    assert received.headers["authorization"] == "Bearer sk-upstream"
    assert received.json["model"] == "scripted"
    assert received.json["max_tokens"] == 7
    assert received.json["top_k"] == 3
    assert received.json["stream_options"] == {"x": 1, "include_usage": True}
    assert "draft" not in received.json


async def test_headers_are_the_gateways_own_and_no_others(scripted, client, deployment, monkeypatch):
    """Only the gateway's own headers are sent, `traceparent` is continued, and no proxy of the environment is used."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    call = call_for(deployment)
    call.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await ask(client, call)
    headers = scripted.requests[0].headers
    assert {name.lower() for name in headers} == {
        *("host", "content-type", "accept", "accept-encoding", "user-agent", "authorization", "content-length"),
        "traceparent",
    }
    assert headers["accept-encoding"] == "identity"
    assert headers["traceparent"] == call.traceparent


async def test_no_key_no_authorization(scripted):
    """A backend without a key gets no authorization header."""
    deployment = deployment_at(scripted.base_url, key="")
    client = OpenAIBackend(deployment.backend)
    await ask(client, call_for(deployment))
    await client.close()
    assert "authorization" not in scripted.requests[0].headers


async def test_cookies_are_not_kept(scripted, client, deployment):
    """A cookie that a backend sets comes back on no later request: it would tie tenants together."""
    scripted.queue.append(Script(headers={"set-cookie": "a=b"}))
    await ask(client, call_for(deployment))
    await ask(client, call_for(deployment))
    assert "cookie" not in scripted.requests[1].headers


async def test_connection_is_kept_between_streams(scripted, client, deployment):
    """Streams that ended whole leave their connection for the next."""
    for _ in range(4):
        await ask(client, call_for(deployment))
    assert len(scripted.peers) == 1


async def test_phases_are_timed_apart(scripted, client, deployment):
    """The record has connect, prefill (sent to first content) and decode (first content to the end), and the tokens."""
    scripted.queue.append(Script(think_s=0.15, delay_s=0.02, chunks=6))
    call = call_for(deployment)
    await ask(client, call)
    record = call.record
    assert record.status == 200
    assert 0 <= record.connect_s < 0.1
    assert 0.14 <= record.prefill_s < 0.3
    assert 0.09 <= record.decode_s < 0.3
    assert (record.usage.input_tokens, record.usage.output_tokens) == (11, 6)


async def test_cancelled_call_reaches_the_backend_at_once(scripted, client, deployment):
    """When a call is cancelled in mid-answer, the backend sees the disconnect within 50 ms."""
    scripted.queue.append(Script(delay_s=0.01, chunks=10_000))
    taken = Taken()
    task = asyncio.create_task(client.answer(call_for(deployment), taken))
    await taken.first.wait()
    left = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: scripted.disconnects)
    assert scripted.disconnects[0] - left < 0.05
    assert scripted.open == 0


async def test_cancelled_before_the_first_byte_reaches_the_backend_at_once(scripted, client, deployment):
    """When a call is cancelled before any answer, the backend sees the disconnect within 50 ms."""
    scripted.queue.append(Script(stall_after=-1))
    task = asyncio.create_task(client.answer(call_for(deployment), Taken()))
    await _until(lambda: scripted.open)
    left = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: scripted.disconnects)
    assert scripted.disconnects[0] - left < 0.05


async def test_emit_that_fails_closes_the_backend(scripted, client, deployment):
    """When an event cannot be taken over, its error goes up unchanged and the backend is left at once."""
    scripted.queue.append(Script(delay_s=0.01, chunks=10_000))

    async def broken_emit(event):
        raise ConnectionResetError("the client left")

    with pytest.raises(ConnectionResetError, match="the client left"):
        await client.answer(call_for(deployment), broken_emit)
    await _until(lambda: scripted.disconnects)
    assert scripted.open == 0


async def test_slow_reader_slows_the_backend(scripted, client, deployment):
    """A client that does not read holds the backend up: it cannot send more than buffers take."""
    scripted.queue.append(Script(text="x" * 20_000, chunks=2_000))
    held = asyncio.Event()

    async def holding_emit(event):
        await held.wait()

    task = asyncio.create_task(client.answer(call_for(deployment), holding_emit))
    sent = -1
    while sent != scripted.chunks_sent or sent <= 0:
        sent = scripted.chunks_sent
        await asyncio.sleep(0.3)
    assert sent < 1_000
    task.cancel()
    await asyncio.wait((task,))


async def test_stale_connection_is_sent_on_again_once(client, deployment, unused_tcp_port):
    """A request whose kept connection ends without one byte answered is sent again on a new one, and only once."""
    async with _Stale(unused_tcp_port) as server:
        deployment = deployment_at(server.base_url)
        client = OpenAIBackend(deployment.backend)
        await ask(client, call_for(deployment, stream=False))
        taken = await ask(client, call_for(deployment, stream=False))
        await client.close()
    assert isinstance(taken.events[0], WholeAnswer)
    assert server.requests == [1, 2, 1]


async def test_answer_that_has_begun_is_not_asked_for_again(unused_tcp_port):
    """A kept connection that ends inside the head of an answer has answered: the request is not sent again."""
    async with _Stale(unused_tcp_port, second=b"HTTP/1.1 200 OK\r\ncontent-ty") as server:
        deployment = deployment_at(server.base_url)
        client = OpenAIBackend(deployment.backend)
        await ask(client, call_for(deployment, stream=False))
        with pytest.raises(BackendUnreachable):
            await ask(client, call_for(deployment, stream=False))
        await client.close()
    assert server.requests == [1, 2]


async def test_concurrency_bounds_the_attempts_at_once(scripted):
    """No more attempts than `concurrency` are at the backend at once; the others wait, and the wait is recorded."""
    deployment = deployment_at(scripted.base_url, concurrency=2)
    client = OpenAIBackend(deployment.backend)
    scripted.default = Script(think_s=0.1)
    calls = [call_for(deployment) for _ in range(5)]
    most = 0

    async def watch():
        nonlocal most
        while True:
            most = max(most, scripted.open)
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(ask(client, call) for call in calls))
    watching.cancel()
    await client.close()
    assert most == 2
    assert max(call.record.queue_s for call in calls) >= 0.15


async def test_compressed_stream_is_understood(scripted, client, deployment):
    """A backend that compresses although it was asked not to is read all the same."""
    scripted.queue.append(Script(coding="gzip", raw=(_STREAM,)))
    taken = await ask(client, call_for(deployment))
    assert taken.text == "hi"


async def test_compressed_answer_is_understood(scripted, client, deployment):
    """A compressed whole answer reaches the client as JSON, not as gzip."""
    scripted.queue.append(Script(coding="gzip"))
    taken = await ask(client, call_for(deployment, stream=False))
    assert json.loads(taken.events[0].body)["choices"]


async def test_several_choices_are_all_awaited(scripted, client, deployment):
    """With `n`, the answer is finished when every choice has its finish reason."""
    taken = await ask(client, call_for(deployment, n=3))
    assert [event.finish_reason for event in taken.events[:-1] if event.finish_reason] == ["stop"]
    assert taken.events[-1].usage == Usage(input_tokens=11, output_tokens=11)


_STREAM = (
    b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
    b'data: {"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


class _Stale:
    """A server that answers one request a connection and ends it, unannounced, when the next one has come."""

    def __init__(self, port: int, *, second: bytes = b"") -> None:
        self._second = second
        """What comes before the end."""
        self.requests: list[int] = []
        """The number of each request on its connection."""
        self._port = port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        for number in (1, 2):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(length)
            self.requests.append(number)
            if number == 1:
                body = b'{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
                writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        writer.write(self._second)
        writer.close()


async def _until(condition, *, within_s: float = 2.0):
    async with asyncio.timeout(within_s):
        while not condition():  # the server keeps figures, not events
            await asyncio.sleep(0.002)


async def test_a_backend_that_refuses_the_usage_option_is_remembered(scripted, client, deployment):
    """The request is sent again without the option, once; from then on it is not sent at all."""
    scripted.default = Script(refuses_usage_option=True, usage="none")
    for requests in (2, 3):
        taken = await ask(client, call_for(deployment, stream=True))
        assert taken.events[-1].finish_reason == "stop"
        assert len(scripted.requests) == requests
    assert "stream_options" not in scripted.requests[-1].json
