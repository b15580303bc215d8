"""What a request made goes with its last reference: nothing waits for Python to search for cycles.

A gateway looks for cycles seldom (`gateway.server.garbage`), so what is caught in one stays for thousands of requests.
"""

import asyncio
import gc
import json

import aiohttp
import pytest

from gateway.exchange import Exchange
from gateway.modes.plan import Plan
from gateway.server.streaming import StreamReply
from tests.gateway_fixture import KEY, policy_text
from tests.upstream.script import Script
from tests.upstream.scripted import ScriptedUpstream

pytestmark = pytest.mark.store

OF_A_REQUEST = (Exchange, StreamReply, Plan)
DRAFTS = "mode: draft_refine\n    models: [large]\n    fallback: [small]\n    draft: {max_tokens: 8}"
CASCADE = "mode: cascade\n    models: [large]\n    cascade: {threshold: 0.8}\n    draft: {max_tokens: 8}"
HEDGE = "mode: hedge\n    models: [large]\n    hedge: {after: 10ms, extra: 50%}"
CACHED = "mode: cloud_only\n    models: [large]\n    cache: {ttl: 60s}"
SLOW = Script(text="Paris is the capital.", chunks=3, think_s=0.1, delay_s=0.02)
CHAT, MESSAGES, RESPONSES = "chat/completions", "messages", "responses"
QUESTION = {
    "model": "large",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 10,
    "temperature": 0,
}
ASKED = {"model": "large", "input": "hello", "max_output_tokens": 16, "temperature": 0}


@pytest.fixture
async def second():
    async with ScriptedUpstream() as server:
        server.default = Script(text="Paris.")
        yield server


@pytest.fixture
def kept():
    """Gives what of requests is there that was not before, by its type; nobody looks for cycles meanwhile."""
    gc.collect()
    gc.disable()
    before = {id(found) for found in of_requests()}
    yield lambda: sorted(type(found).__name__ for found in of_requests() if id(found) not in before)
    gc.enable()
    gc.collect()


def of_requests():
    return [found for found in gc.get_objects() if isinstance(found, OF_A_REQUEST)]


async def ask(gateway, path, body, leaves_after_s):
    """The status of each answer that was waited for."""
    told = []
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        for number in range(3):
            asked = json.loads(json.dumps(body).replace("hello", f"hello {number}"))  # a hit is kept, to come again
            try:
                async with (
                    asyncio.timeout(leaves_after_s),
                    session.post(f"{gateway.base_url}/{path}", json=asked) as answer,
                ):
                    await answer.read()
                    told.append(answer.status)
            except TimeoutError:
                pass
    return told


@pytest.mark.parametrize("leaves_after_s", [None, 0.05], ids=["stays", "leaves"])
@pytest.mark.parametrize("status", [200, 500], ids=["answered", "fails"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("route", "edge", "path", "body"),
    [
        pytest.param(DRAFTS, True, CHAT, QUESTION, id="drafts"),
        pytest.param(DRAFTS, True, CHAT, QUESTION | {"draft": "frames"}, id="frames"),
        pytest.param(CASCADE, True, CHAT, QUESTION, id="cascade"),
        pytest.param(HEDGE, False, CHAT, QUESTION, id="hedge"),
        pytest.param(CACHED, False, CHAT, QUESTION, id="cached"),
        pytest.param(CACHED, False, MESSAGES, QUESTION, id="messages"),
        pytest.param(CACHED, False, RESPONSES, ASKED, id="responses"),
        pytest.param(CACHED, False, CHAT, QUESTION | {"model": "nope"}, id="unknown"),
    ],
)
async def test_nothing_of_a_request_is_left(
    start_gateway, upstream, second, kept, route, edge, path, body, stream, status, leaves_after_s
):
    """Whatever the mode, the surface, and what becomes of it."""
    upstream.default = SLOW if status == 200 else Script(status=status, think_s=0.02)
    text = policy_text(upstream.base_url, route=route, second_url=second.base_url if route is HEDGE else "")
    gateway = await start_gateway(text, edge=edge)
    told = await ask(gateway, path, body | {"stream": stream}, leaves_after_s)
    if status == 200 and leaves_after_s is None:
        assert told == [404 if body["model"] == "nope" else 200] * 3
    for _ in range(100):
        if not gateway.services.in_flight and not kept():
            break
        await asyncio.sleep(0.02)
    assert kept() == []
