"""Constraints hold where an answer is given again, and when what is allowed fails."""

import aiohttp

from tests.gateway_fixture import policy_text
from tests.upstream.script import Script

ROUTE = """mode: cloud_only
    models: [large]
    cache: {ttl: 1h, temperature: any}
    when_budget_is_spent: cheapest"""
CONSTRAINT = """
  - name: personal-data-stays-in-the-eu
    when: '"personal" in request.labels'
    require: {region: [eu-*, local]}
"""
BODY = {"model": "large", "messages": [{"role": "user", "content": "the same words"}]}


async def start(start_gateway, upstream):
    text = policy_text(upstream.base_url, route=ROUTE, second_url=upstream.base_url)
    return await start_gateway(text.replace("constraints:", f"constraints:{CONSTRAINT}", 1), edge=False)


async def ask(session, gateway, **headers):
    url = f"{gateway.base_url}/chat/completions"
    async with session.post(url, json=BODY, headers=gateway.auth | headers) as response:
        await response.read()
        return (
            response.status,
            response.headers.get("x-firstdraft-cache"),
            response.headers.get("x-firstdraft-deployment"),
        )


async def test_answer_that_could_have_come_from_outside_is_not_served_inside(start_gateway, upstream):
    """A cached answer serves only requests that may go to just the same places."""
    gateway = await start(start_gateway, upstream)
    async with aiohttp.ClientSession() as session:
        assert (await ask(session, gateway))[1] == "miss"
        assert (await ask(session, gateway))[1] == "hit"
        assert (await ask(session, gateway, **{"x-firstdraft-labels": "personal"}))[1] == "miss"
        assert (await ask(session, gateway, **{"x-firstdraft-labels": "personal"}))[1] == "hit"


async def test_failover_stays_within_what_the_constraints_left(start_gateway, upstream):
    """When the allowed place fails, the other one is asked only for requests that may go there."""
    gateway = await start(start_gateway, upstream)
    upstream.by_model["scripted"] = Script(status=503)
    async with aiohttp.ClientSession() as session:
        status, _, _ = await ask(session, gateway, **{"x-firstdraft-labels": "personal"})
        assert status == 503
        assert {request.json["model"] for request in upstream.requests} == {"scripted"}
        status, _, deployment = await ask(session, gateway)
        assert (status, deployment) == (200, "second/scripted-2")
