"""The recorded backend of the demo: honest about what it is, and at a realistic pace."""

import asyncio
import json

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from gateway.backends.openai import OpenAIBackend
from gateway.inference.events import UsageReported, WholeAnswer
from tests.unit.backends.asking import Taken, ask, call_for, deployment_at
from tests.upstream.recorded import MODEL, RecordedBackend, Recordings

ROBE = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"


@pytest.fixture
def backend():
    return RecordedBackend(Recordings(), ttft_s=0.2, tokens_per_second=200)


@pytest.fixture
async def recorded(backend):
    async with TestServer(backend.app()) as server:
        yield f"http://127.0.0.1:{server.port}/v1"


@pytest.fixture
async def client(recorded):
    backend = OpenAIBackend(deployment_at(recorded).backend)
    yield backend
    await backend.close()


async def test_known_question_gets_its_recorded_answer_in_time(recorded, client):
    """A recorded question gets the answer that was recorded, first token after the TTFT, then at the given pace."""
    call = call_for(deployment_at(recorded), max_tokens=None, messages=[{"role": "user", "content": ROBE}])
    taken = await ask(client, call)
    assert "3 bolts" in taken.text
    assert "recording" not in taken.text
    assert 0.2 <= call.record.prefill_s < 0.4
    assert isinstance(taken.events[-1], UsageReported)
    expected_s = (call.record.output_tokens - 1) / 200
    assert expected_s * 0.9 <= call.record.decode_s < expected_s + 0.3


async def test_unknown_question_is_told_to_be_unknown(recorded, client):
    """A question that was not recorded is answered with the nearest, and says so first."""
    messages = [{"role": "user", "content": "How fast does an unladen swallow fly?"}]
    taken = await ask(client, call_for(deployment_at(recorded), max_tokens=20, stream=False, messages=messages))
    answer = taken.events[0]
    assert isinstance(answer, WholeAnswer)
    assert answer.text.startswith("(This is a recording, and it holds no answer to that question.")
    assert answer.finish_reason == "length"
    assert json.loads(answer.body)["model"] == MODEL


async def test_every_response_says_that_it_is_a_recording(recorded):
    """The header `x-recorded` stands on answers, lists and errors alike."""
    async with ClientSession() as session:
        async with session.get(f"{recorded}/models") as models:
            assert (models.headers["x-recorded"], (await models.json())["data"][0]["id"]) == ("true", MODEL)
        async with session.post(f"{recorded}/chat/completions", data=b"{") as refused:
            assert (refused.status, refused.headers["x-recorded"]) == (400, "true")


async def test_client_that_leaves_stops_the_recording(backend, recorded, client):
    """When the client leaves in mid-answer, the recording stops at once instead of playing to its end."""
    taken = Taken()
    task = asyncio.create_task(client.answer(call_for(deployment_at(recorded)), taken))
    await taken.first.wait()
    assert backend.active == 1
    task.cancel()
    await asyncio.wait((task,))
    await asyncio.sleep(0.05)
    assert backend.active == 0
