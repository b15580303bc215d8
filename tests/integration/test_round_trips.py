"""How often a request waits for the store."""

import asyncio

import aiohttp
import pytest

from gateway.cache import secret
from gateway.store.client import Store
from gateway.tenants import registry
from tests.gateway_fixture import KEY, policy_text
from tests.upstream.script import Script

pytestmark = pytest.mark.store

BUDGETS = "budgets: [{tokens: 1_000_000, per: day}, {usd: 50, per: month}]\n    rate: {requests: 600, per: minute}"
BACKGROUND = {"epoch", "renew", "expire", "settle", "publish"}
"""Scripts that no request waits for."""


@pytest.fixture
def asked(monkeypatch):
    """The scripts and commands that were sent while somebody could have waited for them, by name."""
    names, script, ask = [], Store.script, Store._ask

    async def named_script(self, called, keys, args):
        names.append(called.name)
        return await script(self, called, keys, args)

    async def named_ask(self, packed, key):
        names.append(packed.split(b"\r\n")[2].decode())
        return await ask(self, packed, key)

    monkeypatch.setattr(registry, "POLL_S", 3_600)  # what goes on beside requests is not what is counted
    monkeypatch.setattr(secret, "_EVERY_S", 3_600)
    monkeypatch.setattr(Store, "script", named_script)
    monkeypatch.setattr(Store, "_ask", named_ask)
    return names


async def waited_for(gateway, names, text, **more):
    """What a request waits for until the head of its answer is there; the rest of the answer is then read."""
    body = {
        "model": "large",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 9,
        **more,
    }
    url, headers = f"{gateway.base_url}/chat/completions", {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession() as session:
        names.clear()
        async with session.post(url, json=body, headers=headers) as response:
            waited = [name for name in names if name not in BACKGROUND | {"SMEMBERS", "SET", "HSET", "tenants"}]
            assert response.status == 200
            await response.read()
    await asyncio.sleep(0.1)
    return waited


@pytest.mark.parametrize("stream", [True, False])
async def test_at_most_two_round_trips(start_gateway, upstream, asked, stream):
    """One for the cache and one for all budgets and rates together; none where memory has the answer."""
    route = "mode: cloud_only\n    models: [large]\n    cache: {ttl: 1h}"
    upstream.default = Script(text="Hi.")
    one, other = [
        await start_gateway(policy_text(upstream.base_url, route=route, budgets=BUDGETS), edge=False) for _ in range(2)
    ]
    await waited_for(one, asked, "first of all", stream=stream)
    assert await waited_for(one, asked, "new", stream=stream) == ["lookup", "hold"]
    assert await waited_for(one, asked, "new", stream=stream) == []
    assert await waited_for(other, asked, "new", stream=stream) == ["lookup"]


async def test_without_a_cache_it_is_one(start_gateway, upstream, asked):
    """A route that keeps nothing asks for the budgets alone."""
    source = policy_text(upstream.base_url, route="mode: cloud_only\n    models: [large]", budgets=BUDGETS)
    gateway = await start_gateway(source, edge=False)
    await waited_for(gateway, asked, "first of all")
    assert await waited_for(gateway, asked, "new") == ["hold"]
