"""The edge as a backend, with the real model."""

import asyncio

import pytest

from gateway.backends.call import Call
from gateway.backends.edge import EdgeBackend
from gateway.edge.client import EdgeClient
from gateway.errors import EdgeUnavailable
from gateway.inference.deployment import FREE, Backend, Deployment
from gateway.inference.events import Finished, TextDelta, UsageReported
from gateway.telemetry.record import AttemptRecord
from gateway.wire.openai_chat import decode_request
from tests.unit.backends.asking import Taken

pytestmark = pytest.mark.edge

DEPLOYMENT = Deployment(
    id="edge/smol", backend=Backend(name="edge", type="edge", region="local"), model="smol", price=FREE
)
BODY = b'{"model":"small","messages":[{"role":"user","content":"Name three colours."}],"temperature":0}'


@pytest.fixture
async def edge(edge_socket):
    async with EdgeClient(edge_socket) as client:
        async with asyncio.timeout(10):
            while client.status.state != "warm":  # the client tells its state, not its changes
                await asyncio.sleep(0.01)
        yield client


def _call(max_tokens):
    return Call(
        request=decode_request(BODY),
        deployment=DEPLOYMENT,
        max_tokens=max_tokens,
        tenant="acme",
        record=AttemptRecord(deployment=DEPLOYMENT.id),
        deadline=asyncio.get_running_loop().time() + 60,
    )


async def test_real_answer_has_its_events_timings_and_logprobs(edge):
    """The real edge gives text, finish reason and usage in order, a log-probability a token, and each phase's time."""
    taken, call = Taken(), _call(12)
    await EdgeBackend(edge).answer(call, taken)
    *texts, finished, reported = taken.events
    assert texts
    assert all(isinstance(event, TextDelta) and event.text for event in texts)
    assert finished in (Finished("length"), Finished("stop"))
    assert isinstance(reported, UsageReported)
    record = call.record
    assert 1 <= record.usage.output_tokens <= 12
    assert len(record.logprobs) >= record.usage.output_tokens - 1
    assert all(logprob <= 0 for logprob in record.logprobs)
    assert record.usage.input_tokens > 0
    assert record.prefill_s > 0
    assert record.decode_s > 0


async def test_cancelled_answer_stops_the_edge(edge):
    """A cancelled call leaves nothing running at the edge."""
    taken = Taken()
    task = asyncio.create_task(EdgeBackend(edge).answer(_call(1_000), taken))
    await taken.first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(2):
        while (await edge.stats()).active:  # the edge tells figures when asked
            await asyncio.sleep(0.01)


async def test_edge_that_is_not_there(tmp_path):
    """A gateway whose edge does not run says so, at once."""
    async with EdgeClient(tmp_path / "edge.sock") as client:
        with pytest.raises(EdgeUnavailable):
            await EdgeBackend(client).answer(_call(5), Taken())
