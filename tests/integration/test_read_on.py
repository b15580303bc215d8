"""Backends that go on when a client has left, and bill it: their answers are read to the end, for the count."""

import asyncio

import aiohttp
import pytest

from tests.gateway_fixture import policy_text
from tests.integration.test_disconnect import within
from tests.upstream.script import Script

ROUTE = "mode: cloud_only\n    models: [large]"
BUDGET = "budgets: [{tokens: 1_000_000, per: day}]"


def policy(upstream, read_on):
    text = policy_text(upstream.base_url, route=ROUTE, budgets=BUDGET)
    return text.replace("    type: openai\n", f"    type: openai\n    read_on: {read_on}\n", 1)


async def leave(gateway, upstream, *, stream):
    """Ask, and leave in mid-answer."""
    body = {"model": "large", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 400, "stream": stream}
    async with aiohttp.ClientSession(headers=gateway.auth) as session:
        asking = asyncio.create_task(session.post(f"{gateway.base_url}/chat/completions", json=body))
        if stream:
            response = await asking
            await response.content.readany()
            response.close()
        else:
            await within(5, lambda: asyncio.sleep(0, upstream.open == 1))
            await asyncio.sleep(0.1)
            asking.cancel()


async def usage(gateway):
    """What the tenant's budget has lost, and how its last request was charged."""
    async with aiohttp.ClientSession(headers=gateway.auth) as session:
        answer = await (await session.get(f"{gateway.base_url}/firstdraft/usage")).json()
    (budget,) = answer["budgets"]
    return budget["limit"] - budget["left"], answer.get("last") or {}


def left_over(gateway):
    return len(gateway.services.backends.leftovers)


@pytest.mark.parametrize("stream", [True, False])
async def test_what_the_backend_counts_is_booked(start_gateway, upstream, stream):
    """The client is gone, the request is over, and the hold stays until the backend has said what it bills."""
    gateway = await start_gateway(policy(upstream, "20s"))
    upstream.default = Script(chunks=60, delay_s=0.01, think_s=0.0 if stream else 0.7)
    await leave(gateway, upstream, stream=stream)
    await within(2, lambda: asyncio.sleep(0, gateway.services.in_flight == 0))
    assert left_over(gateway) == 1
    held, _ = await usage(gateway)
    assert held > 400
    await within(10, lambda: asyncio.sleep(0, left_over(gateway) == 0))
    await gateway.services.ledger._settler.flush(2)
    booked, last = await usage(gateway)
    assert not last["estimated"]
    assert booked == last["input_tokens"] + last["output_tokens"]
    assert last["output_tokens"] >= (60 if stream else 1)  # the whole answer is the script's text


async def test_nothing_is_read_on_for_ever(start_gateway, upstream):
    """When the time is over the backend is left, and what had come is booked."""
    gateway = await start_gateway(policy(upstream, "300ms"))
    upstream.default = Script(chunks=10_000, delay_s=0.01)
    await leave(gateway, upstream, stream=True)
    await within(5, lambda: asyncio.sleep(0, upstream.open == 0 and left_over(gateway) == 0))
    await gateway.services.ledger._settler.flush(2)
    booked, last = await usage(gateway)
    assert last["estimated"]
    assert 0 < booked == last["input_tokens"] + last["output_tokens"] < 400


async def test_a_gateway_that_ends_waits_for_none(start_gateway, upstream):
    """At the end of the gateway what is read on is given up, and booked at its estimate."""
    gateway = await start_gateway(policy(upstream, "100s"))
    upstream.default = Script(chunks=10_000, delay_s=0.01)
    await leave(gateway, upstream, stream=True)
    await within(2, lambda: asyncio.sleep(0, left_over(gateway) == 1))
    await asyncio.wait_for(gateway.services.backends.leftovers.close(), 2)
    await within(2, lambda: asyncio.sleep(0, upstream.open == 0))
    assert gateway.services.ledger.open_holds == 0


async def test_only_so_many_are_read_on(start_gateway, upstream, monkeypatch):
    """Beyond a bound, an answer is given up with its client."""
    monkeypatch.setattr("gateway.backends.leftovers.MOST_AT_ONCE", 0)
    gateway = await start_gateway(policy(upstream, "100s"))
    upstream.default = Script(chunks=10_000, delay_s=0.01)
    await leave(gateway, upstream, stream=True)
    await within(2, lambda: asyncio.sleep(0, upstream.open == 0))
    assert left_over(gateway) == 0
