"""OpenAIBackend against a real server that fails, one way at a time."""

import asyncio
import json

import pytest

from gateway.backends.openai import OpenAIBackend
from gateway.errors import (
    BackendBroken,
    BackendCredentials,
    BackendCut,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
)
from gateway.inference.deployment import Timeouts
from gateway.inference.events import Relayed
from tests.unit.backends.asking import Taken, ask, call_for, deployment_at
from tests.upstream.script import Script

PLAIN, STREAMED = False, True
BOTH = (PLAIN, STREAMED)

FAULTS = {
    "html": (Script(body=b"<html>login</html>", content_type="text/html"), BOTH, BackendBroken),
    "empty": (Script(body=b""), (PLAIN,), BackendBroken),
    "no content": (Script(status=204, body=b""), BOTH, BackendBroken),
    "redirect": (Script(status=302, body=b"", headers={"location": "http://127.0.0.1:1/"}), BOTH, BackendBroken),
    "not json": (Script(body=b"{not json"), (PLAIN,), BackendBroken),
    "half of the json": (Script(body=b'{"choices":[{"index":0,"message":{"con'), (PLAIN,), BackendBroken),
    "no choices": (Script(body=b'{"choices":[]}'), (PLAIN,), BackendBroken),
    "json to a streamed request": (Script(body=b"{}"), (STREAMED,), BackendBroken),
    "stream to a plain request": (Script(content_type="text/event-stream"), (PLAIN,), BackendBroken),
    "coding that was not asked for": (Script(coding="br"), BOTH, BackendBroken),
    "not the coding it says": (Script(body=b"{}" * 50, headers={"content-encoding": "gzip"}), (PLAIN,), BackendBroken),
    "nothing but the head": (Script(raw=(b"",)), (STREAMED,), BackendCut),
    "no finish reason": (Script(finish_reason=None), BOTH, BackendCut),
    "no finish reason, no end mark": (Script(finish_reason=None, done=False), (STREAMED,), BackendCut),
    "cut before the head": (Script(cut="before_head"), BOTH, BackendUnreachable),
    "reset before the head": (Script(cut="before_head", reset=True), BOTH, BackendUnreachable),
    "cut in the head": (Script(cut="in_head"), BOTH, BackendUnreachable),
    "cut after the head": (Script(cut="after_head"), BOTH, BackendCut),
    "cut in mid-answer": (Script(cut_after=3), BOTH, BackendCut),
    "reset in mid-answer": (Script(cut_after=3, reset=True), BOTH, BackendCut),
    "garbage event": (Script(first_events=(b"{garbage",)), (STREAMED,), BackendBroken),
    "error event": (Script(error_event={"error": {"message": "no", "code": 503}}), (STREAMED,), BackendRefused),
    "named error event": (Script(error_event={"message": "no"}, error_name="error"), (STREAMED,), BackendRefused),
    "error object with status 200": (Script(body=b'{"error":{"message":"no"}}'), (PLAIN,), BackendRefused),
    "huge event": (Script(text="x" * 5_000_000, chunks=1), (STREAMED,), BackendBroken),
}


@pytest.mark.parametrize(
    ("name", "stream"), [(name, stream) for name, (_, ways, _) in FAULTS.items() for stream in ways]
)
async def test_fault_becomes_one_clear_error(scripted, client, deployment, name, stream):
    """Each fault of a backend becomes its one error, and no event that says the answer is complete."""
    script, _, expected = FAULTS[name]
    scripted.queue.append(script)
    taken = Taken()
    with pytest.raises(expected) as caught:
        await client.answer(call_for(deployment, stream=stream), taken)
    assert type(caught.value) is expected
    assert caught.value.deployment == deployment.id
    assert not any(event.finish_reason for event in taken.events if isinstance(event, Relayed))
    assert scripted.base_url.removeprefix("http://") not in caught.value.message


@pytest.mark.parametrize(
    "script",
    [
        Script(done=False),
        Script(comments=True),
        Script(line_end="\r\n"),
        Script(line_end="\r"),
        Script(multiline=True),
        Script(fragment=1, text="häßlich 漢字 🙂"),
        Script(fragment=7, line_end="\r\n", comments=True),
        Script(first_events=(b'{"choices":[],"prompt_filter_results":[]}', b"")),
        Script(usage="every"),
        Script(usage="finish"),
        Script(usage="none"),
    ],
    ids=lambda script: ",".join(f"{k}={v}" for k, v in script.__rich_repr__() if v != getattr(Script(), k))[:50],
)
async def test_odd_but_valid_stream_is_understood(scripted, client, deployment, script):
    """A stream that is allowed, if unusual, gives the same text and one finish reason."""
    scripted.queue.append(script)
    taken = await ask(client, call_for(deployment))
    assert taken.text.split() == script.text.split()
    assert [event.finish_reason for event in taken.events if getattr(event, "finish_reason", None)] == ["stop"]


@pytest.mark.parametrize("stream", BOTH)
@pytest.mark.parametrize("status", [400, 404, 408, 409, 413, 422, 429, 500, 502, 503, 529])
async def test_error_status_keeps_status_and_body(scripted, client, deployment, status, stream):
    """An error status is passed on as it is, with OpenAI's error object byte for byte."""
    body = b'{ "error": {"message": "told so", "type": "t", "code": "c"}, "id": 1}'
    scripted.queue.append(Script(status=status, body=body))
    with pytest.raises(BackendRefused) as caught:
        await ask(client, call_for(deployment, stream=stream))
    assert caught.value.status == status
    assert caught.value.body == body
    assert caught.value.retryable == (status in {408, 409, 429, 500, 502, 503, 529})


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_not_quoted(scripted, client, deployment, status):
    """A backend that refuses the gateway's own key is our 502, without its words, and another may be tried."""
    body = b'{"error":{"message":"Incorrect API key provided: sk-upstream"}}'
    scripted.queue.append(Script(status=status, body=body))
    with pytest.raises(BackendCredentials) as caught:
        await ask(client, call_for(deployment))
    assert (caught.value.status, caught.value.retryable) == (502, True)
    assert "sk-upstream" not in caught.value.message


async def test_error_status_with_html_has_no_body(scripted, client, deployment):
    """A proxy's error page is no error object: the status stays, the page goes."""
    scripted.queue.append(Script(status=503, body=b"<html>", content_type="text/html"))
    with pytest.raises(BackendRefused) as caught:
        await ask(client, call_for(deployment))
    assert (caught.value.status, caught.value.body) == (503, None)


async def test_large_error_body_is_not_kept(scripted, client, deployment):
    """An error body over 64 KiB is dropped, the status is not."""
    body = json.dumps({"error": {"message": "x" * 100_000}}).encode()
    scripted.queue.append(Script(status=500, body=body))
    with pytest.raises(BackendRefused) as caught:
        await ask(client, call_for(deployment))
    assert (caught.value.status, caught.value.body) == (500, None)


async def test_retry_headers_are_passed(scripted, client, deployment):
    """`retry-after`, `retry-after-ms` and `x-should-retry` of an error reach the client, other headers do not."""
    headers = {"retry-after": "7", "x-should-retry": "false", "x-other": "1", "set-cookie": "a=b"}
    scripted.queue.append(Script(status=429, headers=headers))
    with pytest.raises(BackendRefused) as caught:
        await ask(client, call_for(deployment))
    assert caught.value.headers == {"retry-after": "7", "x-should-retry": "false"}


async def test_nobody_listens(unused_tcp_port):
    """A refused connection is BackendUnreachable, and names no address."""
    deployment = deployment_at(f"http://127.0.0.1:{unused_tcp_port}/v1")
    client = OpenAIBackend(deployment.backend)
    with pytest.raises(BackendUnreachable) as caught:
        await ask(client, call_for(deployment))
    await client.close()
    assert str(unused_tcp_port) not in caught.value.message


async def test_plain_server_where_tls_is_expected(scripted):
    """A failed TLS handshake is BackendUnreachable."""
    deployment = deployment_at(scripted.base_url.replace("http:", "https:"))
    client = OpenAIBackend(deployment.backend)
    with pytest.raises(BackendUnreachable):
        await ask(client, call_for(deployment))
    await client.close()


async def test_host_that_does_not_exist():
    """A name that cannot be resolved is BackendUnreachable."""
    deployment = deployment_at("http://no-such-host.invalid/v1")
    client = OpenAIBackend(deployment.backend)
    with pytest.raises((BackendUnreachable, BackendTimeout)):
        await ask(client, call_for(deployment))
    await client.close()


async def test_content_before_a_failure_is_given_out(scripted, client, deployment):
    """What came before an error event in the same read is emitted before the error is raised."""
    good = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
    scripted.queue.append(Script(raw=(good + b'data: {"error":{"message":"no"}}\n\n',)))
    taken = Taken()
    with pytest.raises(BackendRefused):
        await client.answer(call_for(deployment), taken)
    assert taken.text == "hi"


async def test_broken_end_after_the_finish_reason_is_no_cut(scripted, client, deployment):
    """Once every choice has its finish reason, a connection that breaks loses nothing."""
    whole = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
    scripted.queue.append(Script(raw=(whole,), cut_after=1))
    taken = await ask(client, call_for(deployment))
    assert taken.text == "hi"


# --- limits -----------------------------------------------------------------------------------------------------


async def _fails_in_time(scripted, script, timeouts, word, *, stream=True, total_s=30.0):
    deployment = deployment_at(scripted.base_url, timeouts=timeouts)
    client = OpenAIBackend(deployment.backend)
    scripted.queue.append(script)
    call = call_for(deployment, stream=stream, total_s=total_s)
    began = asyncio.get_running_loop().time()
    with pytest.raises(BackendTimeout, match=word):
        await ask(client, call)
    assert asyncio.get_running_loop().time() - began < 0.5
    await client.close()
    await asyncio.sleep(0.05)
    assert scripted.open == 0


async def test_first_token_limit_runs_until_content(scripted):
    """Metadata events do not end the wait for the first token."""
    script = Script(first_events=(b'{"choices":[{"index":0,"delta":{"role":"assistant"}}]}',), think_s=5)
    await _fails_in_time(scripted, script, Timeouts(first_token_s=0.2), "no token within 0.2 s")


async def test_first_token_limit_before_the_head(scripted):
    """A backend that does not answer at all is left after the first-token limit."""
    await _fails_in_time(scripted, Script(stall_after=-1), Timeouts(first_token_s=0.2), "no token within 0.2 s")


async def test_idle_limit_in_mid_answer(scripted):
    """A stream that stalls is left after the idle limit."""
    await _fails_in_time(scripted, Script(stall_after=2), Timeouts(idle_s=0.2), "sent nothing for 0.2 s")


async def test_trickle_cannot_outlast_the_total_limit(scripted):
    """A stream that keeps under the idle limit for ever still ends at the total limit."""
    script = Script(chunks=10_000, delay_s=0.02)
    await _fails_in_time(scripted, script, Timeouts(idle_s=0.1, total_s=0.3), "within 0.3 s")


async def test_deadline_of_the_request_is_kept(scripted):
    """An attempt has no more time than its request has left."""
    await _fails_in_time(scripted, Script(chunks=10_000, delay_s=0.02), Timeouts(), "within 0.2 s", total_s=0.2)


async def test_total_limit_of_a_plain_answer(scripted):
    """A whole answer has one limit, the total; that no byte comes while it is made is normal."""
    await _fails_in_time(scripted, Script(think_s=5), Timeouts(first_token_s=0.1, total_s=0.3), "0.3 s", stream=False)


async def test_queue_limit(scripted):
    """An attempt that finds no free place in time is told so."""
    timeouts = Timeouts(first_token_s=0.2, idle_s=5)
    deployment = deployment_at(scripted.base_url, timeouts=timeouts, concurrency=1)
    client = OpenAIBackend(deployment.backend)
    scripted.queue.append(Script(stall_after=1))
    taken = Taken()
    first = asyncio.create_task(client.answer(call_for(deployment), taken))
    await taken.first.wait()
    with pytest.raises(BackendTimeout, match="no free place"):
        await ask(client, call_for(deployment))
    first.cancel()
    await asyncio.wait((first,))
    assert (await ask(client, call_for(deployment))).text
    await client.close()


async def test_slow_client_is_not_the_backends_fault(scripted, deployment):
    """While the client holds an event, no limit of the backend's but the total runs."""
    deployment = deployment_at(scripted.base_url, timeouts=Timeouts(idle_s=0.1, first_token_s=0.3))
    client = OpenAIBackend(deployment.backend)
    taken = Taken(delay_s=0.2)
    scripted.queue.append(Script(chunks=3, delay_s=0.01))
    await client.answer(call_for(deployment), taken)
    await client.close()
    assert taken.text


async def test_many_reads_set_few_timers(scripted, client, deployment, monkeypatch):
    """A stream's reads move a number; they do not set a timer each."""
    loop = asyncio.get_running_loop()
    ours = 0
    call_at = loop.call_at

    def counting(when, callback, *args, **kwargs):
        nonlocal ours
        ours += "AttemptLimits" in getattr(callback, "__qualname__", "")
        return call_at(when, callback, *args, **kwargs)

    monkeypatch.setattr(loop, "call_at", counting)
    scripted.queue.append(Script(chunks=200, delay_s=0.0005))
    await ask(client, call_for(deployment))
    assert 1 <= ours < 10


async def test_a_host_that_is_no_ascii_is_asked_by_its_wire_name():
    """A base URL with letters beyond ASCII ends like any host that does not exist, in an error of ours."""
    deployment = deployment_at("http://bücher-gibt-es-nicht.invalid/v1")
    client = OpenAIBackend(deployment.backend)
    with pytest.raises((BackendUnreachable, BackendTimeout)):
        await ask(client, call_for(deployment))
    await client.close()
