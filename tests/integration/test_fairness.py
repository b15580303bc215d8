"""Waiting for a busy backend, through a whole gateway."""

import asyncio

import aiohttp
import pytest

from tests.gateway_fixture import KEY, OTHER_KEY, policy_text
from tests.upstream.script import Script

pytestmark = pytest.mark.store


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(http, gateway, key, order):
    body = {"model": "large", "messages": [{"role": "user", "content": "Hi"}]}
    async with http.post(
        f"{gateway.base_url}/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}
    ) as response:
        answer = await response.json()
        order.append((key, response.status))
        return response.status, response.headers, answer


def policy(upstream, limits, weight=""):
    text = policy_text(upstream.base_url).replace("    region: eu-west", f"    region: eu-west\n    {limits}", 1)
    return text.replace("  other:\n", f"  other:\n    {weight}\n", 1)


async def test_one_tenants_crowd_does_not_keep_another_out(start_gateway, upstream, http):
    """Behind forty requests of one tenant, another's three are served among the next ones."""
    upstream.default = Script(think_s=0.02)
    gateway = await start_gateway(policy(upstream, "concurrency: 2"), edge=False)
    order = []
    crowd = [asyncio.create_task(ask(http, gateway, KEY, order)) for _ in range(40)]
    await asyncio.sleep(0.05)
    few = [asyncio.create_task(ask(http, gateway, OTHER_KEY, order)) for _ in range(3)]
    await asyncio.gather(*few)
    assert len([one for one in order if one[0] == KEY]) <= 16
    await asyncio.gather(*crowd)
    assert {status for _, status in order} == {200}


async def test_weights_are_the_policys(start_gateway, upstream, http):
    """A tenant of weight 4 gets about four times the turns of one of weight 1."""
    upstream.default = Script(think_s=0.01)
    gateway = await start_gateway(policy(upstream, "concurrency: 1", "weight: 4"), edge=False)
    order = []
    tasks = [asyncio.create_task(ask(http, gateway, key, order)) for _ in range(40) for key in (KEY, OTHER_KEY)]
    while len(order) < 30:
        await asyncio.sleep(0.01)
    heavy = sum(key == OTHER_KEY for key, _ in order[:30])
    assert 20 <= heavy <= 28
    await asyncio.gather(*tasks)


async def test_a_full_queue_refuses_with_a_time_to_come_again(start_gateway, upstream, http):
    """One running, one waiting: the third is told at once to come again, and the others are served."""
    upstream.default = Script(think_s=0.3)
    gateway = await start_gateway(policy(upstream, "concurrency: 1\n    queue: 1"), edge=False)
    order = []
    tasks = []
    for _ in range(3):
        tasks.append(asyncio.create_task(ask(http, gateway, KEY, order)))
        await asyncio.sleep(0.05)
    status, headers, answer = await tasks[2]
    assert (status, answer["error"]["code"]) == (503, "backend_busy")
    assert int(headers["retry-after"]) >= 1
    assert [(await task)[0] for task in tasks[:2]] == [200, 200]


async def test_a_full_queue_is_passed_to_the_next_deployment(start_gateway, upstream, http):
    """Where policy has another deployment, a busy one is no reason to refuse."""
    upstream.default = Script(think_s=0.3)
    text = policy_text(upstream.base_url, second_url=upstream.base_url)
    limited = text.replace("    region: eu-west", "    region: eu-west\n    concurrency: 1\n    queue: 1", 1)
    gateway = await start_gateway(limited, edge=False)
    order = []
    answers = await asyncio.gather(*(ask(http, gateway, KEY, order) for _ in range(5)))
    deployments = [headers["x-firstdraft-deployment"] for _, headers, _ in answers]
    assert {status for status, _, _ in answers} == {200}
    assert deployments.count("second/scripted-2") == 3
