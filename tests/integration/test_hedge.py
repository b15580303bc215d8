"""Hedging on real sockets: a real gateway between real clients and two scripted backends."""

from __future__ import annotations

import asyncio
import time

import httpx
import openai
import pytest

from tests.gateway_fixture import KEY, policy_text
from tests.upstream.script import Script
from tests.upstream.scripted import ScriptedUpstream

pytestmark = pytest.mark.store
HEDGE = "mode: hedge\n    models: [large]\n    hedge: {after: 50ms, extra: 50%}"


@pytest.fixture
async def second():
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def gateway(start_gateway, upstream, second):
    budgets = "budgets: [{tokens: 1_000_000, per: day}]"
    text = policy_text(upstream.base_url, second_url=second.base_url, route=HEDGE, budgets=budgets)
    return await start_gateway(text, edge=False)


def ask(**more):
    return {"model": "large", "messages": [{"role": "user", "content": "hello"}], **more}


async def settled(gateway):
    """The last request's record, when it is over and nothing is held any more."""
    async with asyncio.timeout(5):
        while gateway.services.in_flight:
            await asyncio.sleep(0.01)
    return gateway.services.recent.get("acme", None)


async def until_gone(*upstreams):
    async with asyncio.timeout(2):
        while any(upstream.open for upstream in upstreams):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("stream", [True, False])
async def test_the_second_answers_where_the_first_is_late(gateway, upstream, second, stream):
    """An unmodified client gets one ordinary answer, the first backend's connection is closed, both are booked."""
    upstream.default = Script(text="from the first", think_s=30)
    second.default = Script(text="from the second")
    client = openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)
    answer = await client.chat.completions.create(**ask(stream=stream))
    text = (
        "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])
        if stream
        else answer.choices[0].message.content
    )
    assert text == "from the second"
    await until_gone(upstream)
    record = await settled(gateway)
    assert (record.hedge, record.deployment, record.hold) == ("won", "second/scripted-2", "settled")
    assert {tried.deployment: tried.outcome for tried in record.attempts} == {
        "cloud/scripted": "lost",
        "second/scripted-2": "ok",
    }
    assert record.input_tokens == sum(tried.input_tokens for tried in record.attempts)
    await client.close()


async def test_a_client_that_leaves_stops_both(gateway, upstream, second):
    """Both backends see their connection end within moments of the client's leaving."""
    upstream.default = second.default = Script(think_s=30)
    async with httpx.AsyncClient(headers=gateway.auth) as client:
        task = asyncio.create_task(client.post(f"{gateway.base_url}/chat/completions", json=ask(stream=True)))
        async with asyncio.timeout(5):
            while not (upstream.open and second.open):
                await asyncio.sleep(0.005)
        task.cancel()
        left = time.monotonic()
        await asyncio.wait([task])
    await until_gone(upstream, second)
    assert time.monotonic() - left < 1
    record = await settled(gateway)
    assert {tried.outcome for tried in record.attempts} == {"cancelled"}


async def test_both_fail(gateway, upstream, second):
    """The client gets one clear error in its schema."""
    upstream.default = Script(status=503, head_after_s=0.1)
    second.default = Script(status=500, head_after_s=0.1)
    async with httpx.AsyncClient(headers=gateway.auth) as client:
        answer = await client.post(f"{gateway.base_url}/chat/completions", json=ask(stream=True))
    assert answer.status_code in {500, 503}
    assert answer.json()["error"]["message"]


async def test_what_fails_shows_in_health_until_it_is_back(gateway, upstream, second):
    """A backend that fails again and again is passed over, `/readyz` and metrics name it, until it is back."""
    upstream.default = Script(status=500)
    async with httpx.AsyncClient(headers=gateway.auth, base_url=gateway.url) as client:
        for _ in range(7):
            assert (await client.post("/v1/chat/completions", json=ask())).status_code == 200
        assert len(upstream.requests) == 5
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["backends"]["unhealthy"]["cloud/scripted"]["state"] == "open"
        text = (await client.get("/metrics")).text
        assert 'firstdraft_deployment_unhealthy{deployment="cloud/scripted"} 1.0' in text
        upstream.default = Script(text="back")
        second.default = Script(status=500)
        answer = await client.post("/v1/chat/completions", json=ask())  # the last resort, and it works
        assert answer.json()["choices"][0]["message"]["content"] == "back"
        assert (await client.get("/readyz")).json()["backends"] == {"ok": True}
