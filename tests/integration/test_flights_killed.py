"""Single flight between real gateway processes, of which the one that fetches is killed."""

import asyncio
import json
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.gateway_fixture import KEY, policy_text
from tests.integration.process_fixture import Process, short_folder
from tests.upstream.script import Script

pytestmark = [pytest.mark.store, pytest.mark.slow]

HEADERS = {"authorization": f"Bearer {KEY}"}
BODY = {"model": "large", "messages": [{"role": "user", "content": "Hello"}], "stream": True, "temperature": 0}
CHUNKS = 40


class Reader:
    """A client of one gateway: what it was shown, and how that ended."""

    def __init__(self, session, gateway):
        self.text = ""
        self.lines = []
        self.state = ""
        self.task = asyncio.create_task(self._read(session, gateway))

    async def _read(self, session, gateway):
        async with session.post(f"{gateway.url}/v1/chat/completions", json=BODY, headers=HEADERS) as response:
            assert response.status == 200
            self.state = response.headers["x-firstdraft-cache"]
            async for line in response.content:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    assert "error" not in chunk
                    self.text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                self.lines.append(line.strip())

    async def shown(self, characters):
        async with asyncio.timeout(15):
            while len(self.text) < characters and not self.task.done():
                await asyncio.sleep(0.01)


async def test_the_replica_that_fetches_is_killed(valkey_url, store, upstream, tmp_path):
    """Those who read along on another replica get the whole answer, each word once, as if nothing had happened."""
    upstream.default = Script(chunks=CHUNKS, delay_s=0.08)
    (tmp_path / "policy.yaml").write_text(
        policy_text(upstream.base_url, route="mode: cloud_only\n    models: [large]\n    cache: {ttl: 1h}")
    )
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        gateways = []
        for _ in range(2):
            folder = stack.enter_context(short_folder())
            process = Process(tmp_path, folder / "state", "--no-edge", "--redis-url", valkey_url)
            gateways.append(await stack.enter_async_context(process))
        first = Reader(session, gateways[0])
        await first.shown(1)
        others = [Reader(session, gateways[1]) for _ in range(3)]
        await asyncio.gather(*(other.shown(20) for other in others))
        assert [len(other.text) > 0 for other in others] == [True] * 3, "they read along"
        gateways[0].kill()
        await asyncio.wait((first.task,))
        assert first.task.exception() is not None, "it was killed in mid-answer"
        await asyncio.wait_for(asyncio.gather(*(other.task for other in others)), 30)
    assert len(upstream.requests) == 2, "the other replica asked once for all"
    whole = [other.text for other in others]
    assert whole == [await expected(upstream)] * 3
    for other in others:
        assert other.state == "coalesced"
        assert other.lines[-2:] == [b"data: [DONE]", b""]
        assert len({json.loads(line[6:])["id"] for line in other.lines if line.startswith(b"data: {")}) == 1


async def expected(upstream):
    """What the backend says to anybody."""
    url, key = f"{upstream.base_url}/chat/completions", {"authorization": "Bearer x"}
    text = ""
    async with aiohttp.ClientSession() as session, session.post(url, json=BODY, headers=key) as answer:
        async for line in answer.content:
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
    return text
