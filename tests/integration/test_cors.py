"""Cross-origin requests: pages of the named origins may call, all others may not, and nobody brings cookies."""

import re
from pathlib import Path

import aiohttp
import pytest

from gateway.server.cors import EXPOSED
from tests.gateway_fixture import policy_text

HERE = "https://app.example.com"
BODY = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}
ASK = {"origin": HERE, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}


@pytest.fixture
def start(start_gateway, upstream):
    async def start(*origins):
        route = "mode: cloud_only\n    models: [large]\n    cache: {ttl: 1h, temperature: any}"
        return await start_gateway(policy_text(upstream.base_url, route=route), edge=False, cors_origins=origins)

    return start


async def test_pages_of_a_named_origin_may_call(start):
    """The preflight needs no key; answers, errors, streams and repeated hits can be read, headers too."""
    gateway = await start(HERE, "http://localhost:3000")
    url = f"{gateway.base_url}/chat/completions"
    async with aiohttp.ClientSession() as session:
        async with session.options(url, headers=ASK) as preflight:
            assert preflight.status == 204
            assert preflight.headers["access-control-allow-origin"] == HERE
            assert "POST" in preflight.headers["access-control-allow-methods"]
            assert preflight.headers["access-control-allow-headers"] == "authorization"
            assert "access-control-allow-credentials" not in preflight.headers
        asked = gateway.auth | {"origin": HERE}
        for body, headers, status in (
            (BODY, asked, 200),
            (BODY, asked, 200),
            (BODY, asked, 200),
            (BODY | {"stream": True}, asked, 200),
            (BODY, {"origin": HERE}, 401),
            ({}, asked, 400),
        ):
            async with session.post(url, json=body, headers=headers) as response:
                assert response.status == status
                assert response.headers["access-control-allow-origin"] == HERE
                assert "x-firstdraft-route" in response.headers["access-control-expose-headers"]
                assert response.headers["vary"] == "origin"


async def test_pages_of_other_origins_may_not(start):
    """Their preflight is refused, and what they ask without one has no header that lets them read the answer."""
    gateway = await start(HERE)
    for origin in ("https://evil.example", "null", HERE + ".evil.example", HERE.upper()):
        async with aiohttp.ClientSession() as session:
            url = f"{gateway.base_url}/chat/completions"
            refused = await session.options(url, headers=ASK | {"origin": origin})
            assert (refused.status, "access-control-allow-origin" in refused.headers) == (403, False)
            answer = await session.post(url, json=BODY, headers=gateway.auth | {"origin": origin})
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["vary"] == "origin"


async def test_any_origin_is_a_star_without_credentials(start):
    """`*` is said as `*`: a browser then sends no cookies; header names that are none are not said back."""
    gateway = await start("*")
    async with aiohttp.ClientSession() as session:
        url = f"{gateway.base_url}/models"
        odd = ASK | {"access-control-request-headers": "a, b\tc"}
        preflight = await session.options(url, headers=odd)
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-headers" not in preflight.headers
        answer = await session.get(url, headers=gateway.auth | {"origin": "https://anything.example"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


async def test_it_is_off_by_default(start):
    """Without origins no answer says anything about them, and OPTIONS is a method that no URL takes."""
    gateway = await start()
    async with aiohttp.ClientSession() as session:
        assert (await session.options(f"{gateway.base_url}/models", headers=ASK | gateway.auth)).status == 405
        answer = await session.get(f"{gateway.base_url}/models", headers=gateway.auth | {"origin": HERE})
        assert not [name for name in answer.headers if name.lower().startswith(("access-control", "vary"))]


def test_every_header_of_ours_is_exposed():
    """What the gateway says in `x-…` headers, pages can read."""
    sources = "".join(path.read_text() for path in Path("gateway").rglob("*.py"))
    said = set(re.findall(r'headers\[f?"(x-[a-z-]+)"\]\s*=', sources)) | set(
        re.findall(r'"(x-firstdraft-[a-z-]*[a-z])"', sources)
    )
    assert "x-firstdraft-cascade" in said
    sent = {"x-api-key", "x-firstdraft-draft", "x-firstdraft-feature", "x-firstdraft-labels"}  # to the gateway or by it
    assert said - set(EXPOSED) <= sent
