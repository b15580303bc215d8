"""What a backend is sent of a client's headers, and how each kind of server is asked."""

import hashlib
import json

import aiohttp
import pytest

from tests.gateway_fixture import KEY

ASKED = {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hi"}]}


def policy(url):
    price = "price: {input: 1, output: 2}"
    servers = ("openai", "mistral", "vllm")
    lines = ["backends:", f"  plain: {{type: openai, base_url: '{url}', region: eu}}"]
    lines.append(f"  open: {{type: openai, base_url: '{url}', region: eu, forward_headers: [X-Team, anthropic-beta]}}")
    lines += [f"  {name}: {{type: openai, base_url: '{url}', region: eu, server: {name}}}" for name in servers]
    lines.append("models:")
    lines += [f"  {name}: [{{backend: {name}, model: m, {price}}}]" for name in ("plain", "open", *servers)]
    lines += ["routes: [{name: all, mode: cloud_only, cache: {ttl: 1h}}]", "tenants:"]
    lines.append(f"  acme: {{keys: [{{name: k, sha256: {hashlib.sha256(KEY.encode()).hexdigest()}}}]}}")
    return "\n".join(lines)


@pytest.fixture
async def ask(start_gateway, upstream):
    gateway = await start_gateway(policy(upstream.base_url), edge=False)
    async with aiohttp.ClientSession(headers=gateway.auth) as session:

        async def send(model, body=ASKED, **headers):
            url = f"{gateway.base_url}/chat/completions"
            response = await session.post(url, json={"model": model, **body}, headers=headers)
            assert response.status == 200, await response.text()
            await response.read()
            return response

        yield send


async def test_only_headers_that_policy_lists_are_forwarded(ask, upstream):
    """A listed header reaches the backend that lists it, all others reach nobody."""
    headers = {"x-team": "blue", "anthropic-beta": "a,b", "x-other": "1", "cookie": "c=1"}
    await ask("open", **headers)
    sent = upstream.requests[-1].headers
    assert (sent["x-team"], sent["anthropic-beta"]) == ("blue", "a,b")
    assert not {"x-other", "cookie", "authorization"} & {name.lower() for name in sent}
    await ask("plain", **headers)
    assert not {"x-team", "anthropic-beta"} & {name.lower() for name in upstream.requests[-1].headers}


async def test_a_forwarded_header_is_part_of_the_question(ask):
    """An answer that a header may have changed is not given to a request without it."""
    body = {**ASKED, "temperature": 0}
    found = [(await ask("open", body, **headers)).headers["x-firstdraft-cache"] for headers in ({"x-team": "a"}, {})]
    assert found == ["miss", "miss"]


async def test_traceparent_is_continued_and_not_made(ask, upstream):
    """A client's trace goes on at the backend; without one none is begun."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await ask("plain", traceparent=trace)
    assert upstream.requests[-1].headers["traceparent"].split("-")[1] == trace.split("-")[1]
    await ask("plain", traceparent="nonsense")
    assert "traceparent" not in upstream.requests[-1].headers


@pytest.mark.parametrize(
    ("server", "limit", "role", "asks_usage"),
    [
        ("openai", "max_completion_tokens", "developer", True),
        ("mistral", "max_tokens", "system", False),
        ("vllm", "max_completion_tokens", "system", True),
        ("plain", "max_completion_tokens", "developer", True),
    ],
)
async def test_each_server_is_asked_in_its_own_words(ask, upstream, server, limit, role, asks_usage):
    """The limit's name, the developer's role and the usage option are what the server knows."""
    await ask(server, {**ASKED, "max_completion_tokens": 7, "stream": True})
    sent = json.loads(upstream.requests[-1].body)
    assert {name: sent[name] for name in ("max_tokens", "max_completion_tokens") if name in sent} == {limit: 7}
    assert sent["messages"][0] == {"role": role, "content": "Be brief."}
    assert ("stream_options" in sent) is asks_usage


async def test_a_refused_usage_option_is_remembered(ask, upstream):
    """A server that refuses the option is asked once more without it, and from then on only without."""
    upstream.default.refuses_usage_option = True
    for _ in range(2):
        await ask("plain", {**ASKED, "stream": True})
    assert ["stream_options" in received.json for received in upstream.requests] == [True, False, False]
