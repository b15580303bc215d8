"""Gateways that are killed while they make what is fetched later."""

import asyncio

import httpx
import pytest

from gateway.budgets.terms import tenant_keys
from gateway.store.client import Store
from tests.attack.batches import attack
from tests.attack.gateways import KEYS, LEASE_S, Gateway, write_policy
from tests.store_servers import Server, free_ports
from tests.upstream.script import Script

pytestmark = [pytest.mark.store, pytest.mark.slow]

BODY = {"model": "large", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
ASYNC = {"authorization": f"Bearer {KEYS['closed']}", "prefer": "respond-async"}


@pytest.mark.parametrize("who", ["another", "itself"])
async def test_a_final_of_a_gateway_that_was_killed(tmp_path, upstream, who):
    """Another replica, or the same one started again, begins it anew when the lease is over, and answers it once.

    The killed attempt is booked at what it had reserved, the second one at what it used.
    """
    upstream.default = Script(text="first", think_s=60)
    write_policy(tmp_path / "policies", upstream.base_url, 100_000)
    async with Server(tmp_path / "store", free_ports(1)[0]) as server, httpx.AsyncClient(timeout=30) as client:
        gateways = [Gateway(tmp_path / f"g{number}", tmp_path / "policies", server.url) for number in range(2)]
        try:
            await asyncio.gather(*(gateway.start() for gateway in gateways))
            first, second = gateways
            accepted = await client.post(f"{first.url}/v1/chat/completions", json=BODY, headers=ASYNC)
            while accepted.status_code == 503:  # the store of a busy machine: nothing was begun
                accepted = await client.post(f"{first.url}/v1/chat/completions", json=BODY, headers=ASYNC)
            assert accepted.status_code == 202, accepted.text
            while upstream.open != 1:
                await asyncio.sleep(0.01)
            await first.kill()
            upstream.default = Script(text="second")
            if who == "itself":
                await second.kill()
                await first.start()
                second = first
            where = second.url + accepted.headers["location"]
            final = await client.get(where, params={"wait": 25}, headers=ASYNC)
            assert final.status_code == 200, final.text + gateways[0].log_tail()
            assert final.json()["choices"][0]["message"]["content"] == "second"
            await asyncio.sleep(LEASE_S * 1.5)
        finally:
            for gateway in gateways:
                await gateway.end()
        async with Store(server.url, timeout_s=2.0) as store:
            entries = await store.command("XRANGE", tenant_keys("closed")[3], "-", "+")
        how = [dict(zip(words[::2], words[1::2], strict=True))[b"how"] for _, words in entries]
        assert how.count(b"expired") == 1
        assert b"settled" in how


async def test_a_batch_while_gateways_are_killed():
    """Each line is answered once, the budget is right: the short form of `python -m tests.attack.batches`."""
    outcome = await attack(150, 3)
    assert outcome.broken == [], outcome
