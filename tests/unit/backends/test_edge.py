"""The edge as a backend, over a client that plays what the edge sends."""

import asyncio
import json

import pytest

from gateway.backends.call import Call
from gateway.backends.edge import EdgeBackend
from gateway.edge.client import EdgeDone, EdgeToken
from gateway.errors import BackendTimeout, EdgeCrashed, EdgeUnsuitable
from gateway.inference.deployment import FREE, Backend, Deployment
from gateway.inference.events import Finished, TextDelta, UsageReported
from gateway.inference.usage import Usage
from gateway.telemetry.record import AttemptRecord
from gateway.wire.openai_chat import decode_request
from tests.unit.backends.asking import Taken

DEPLOYMENT = Deployment(
    id="edge/smol", backend=Backend(name="edge", type="edge", region="local"), model="smol", price=FREE
)
DONE = EdgeDone(
    finish_reason="stop",
    prompt_tokens=9,
    cached_tokens=4,
    completion_tokens=3,
    queue_s=0.1,
    prefill_s=0.2,
    decode_s=0.3,
)


class PlayedEdge:
    """Has the part of EdgeClient that a backend uses."""

    def __init__(self, *events):
        self.requests = []
        self.closed = False
        self._events = events

    async def generate(self, request):
        self.requests.append(request)
        try:
            for event in self._events:
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, (int, float)):
                    await asyncio.sleep(event)
                else:
                    yield event
        finally:
            self.closed = True


def _call(*, max_tokens=None, total_s=30.0):
    body = b'{"model":"small","messages":[{"role":"user","content":"hi"}],"temperature":0,"stop":"x"}'
    return Call(
        request=decode_request(body),
        deployment=DEPLOYMENT,
        max_tokens=max_tokens,
        tenant="acme",
        record=AttemptRecord(deployment=DEPLOYMENT.id),
        deadline=asyncio.get_running_loop().time() + total_s,
    )


async def test_answer_in_the_order_of_events():
    """Text as it comes, then the finish reason, then the usage; held-back frames emit nothing."""
    edge = PlayedEdge(EdgeToken("a", (-0.5,), (1.0,)), EdgeToken("", (-0.1, -0.2), ()), EdgeToken("bc"), DONE)
    taken, call = Taken(), _call()
    await EdgeBackend(edge).answer(call, taken)
    usage = Usage(input_tokens=9, output_tokens=3, cached_input_tokens=4)
    assert taken.events == [TextDelta("a"), TextDelta("bc"), Finished("stop"), UsageReported(usage)]
    assert call.record.logprobs == [-0.5, -0.1, -0.2]
    assert (call.record.queue_s, call.record.prefill_s, call.record.decode_s) == (0.1, 0.2, 0.3)
    assert call.record.usage == usage


async def test_limit_is_the_calls_or_the_deployments():
    """The edge is asked for the call's limit, and for the deployment's where the call has none."""
    edge = PlayedEdge(DONE)
    await EdgeBackend(edge).answer(_call(max_tokens=5), Taken())
    await EdgeBackend(edge).answer(_call(), Taken())
    assert [request.max_tokens for request in edge.requests] == [5, DEPLOYMENT.max_output_tokens]
    assert edge.requests[0].tenant == "acme"
    assert edge.requests[0].sampling.stop == ("x",)


async def test_edge_hears_when_its_first_token_is_of_no_use():
    """It is told the call's time for the first token, which is never more than the backend's or the request's limit."""
    edge = PlayedEdge(DONE)
    await EdgeBackend(edge).answer(_call(), Taken())
    await EdgeBackend(edge).answer(_call(total_s=5.0), Taken())
    asked = _call()
    asked.first_token_within_s, asked.isolated, asked.background = 1.5, True, True
    await EdgeBackend(edge).answer(asked, Taken())
    limits = [request.ttft_within_s for request in edge.requests]
    assert limits == [pytest.approx(30.0, abs=0.5), pytest.approx(5.0, abs=0.5), 1.5]
    assert [(request.isolated, request.priority) for request in edge.requests[1:]] == [
        (False, "interactive"),
        (True, "background"),
    ]


def _shaped(shape):
    call = _call()
    body = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "top_k": 7, **shape}
    call.request = decode_request(json.dumps(body).encode())
    return call


@pytest.mark.parametrize(
    ("shape", "schema"),
    [
        ({"response_format": {"type": "text"}}, ""),
        ({"response_format": {"type": "json_object"}}, '{"type":"object"}'),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}}},
            '{"type":"null"}',
        ),
    ],
)
async def test_edge_gets_the_schema(shape, schema):
    """The edge is told the answer's JSON schema, and how many of the likeliest tokens may be drawn."""
    edge = PlayedEdge(DONE)
    await EdgeBackend(edge).answer(_shaped(shape), Taken())
    (request,) = edge.requests
    assert (request.json_schema, request.sampling.top_k) == (schema, 7)


@pytest.mark.parametrize("shape", [{"guided_regex": "a+"}, {"response_format": {"type": "json_schema"}}])
async def test_other_shapes_are_not_for_the_edge(shape):
    """A shape that the edge cannot promise is refused before it is asked."""
    edge = PlayedEdge(DONE)
    with pytest.raises(EdgeUnsuitable):
        await EdgeBackend(edge).answer(_shaped(shape), Taken())
    assert not edge.requests


async def test_cancellation_reaches_the_edge():
    """A cancelled call closes the edge's answer before it ends itself."""
    edge, taken = PlayedEdge(EdgeToken("a"), 60, DONE), Taken()
    task = asyncio.create_task(EdgeBackend(edge).answer(_call(), taken))
    await taken.first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert edge.closed


async def test_emit_that_fails_closes_the_edges_answer():
    """When an event cannot be taken over, the edge is told to stop before the error goes up."""
    edge = PlayedEdge(EdgeToken("a"), DONE)

    async def broken_emit(event):
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await EdgeBackend(edge).answer(_call(), broken_emit)
    assert edge.closed


async def test_deadline_ends_the_edges_answer():
    """The request's deadline holds for the edge as well."""
    edge = PlayedEdge(60, DONE)
    with pytest.raises(BackendTimeout):
        await EdgeBackend(edge).answer(_call(total_s=0.05), Taken())
    assert edge.closed


async def test_error_of_the_edge_goes_up_unchanged():
    """An edge that dies in mid-answer is EdgeCrashed, after what it had sent."""
    taken = Taken()
    with pytest.raises(EdgeCrashed):
        await EdgeBackend(PlayedEdge(EdgeToken("a"), EdgeCrashed("died"))).answer(_call(), taken)
    assert taken.events == [TextDelta("a")]
