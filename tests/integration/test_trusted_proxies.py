"""Headers of trusted proxies: facts for conditions, and nobody else's to set."""

import aiohttp

from tests.gateway_fixture import policy_text

BODY = {"model": "large", "messages": [{"role": "user", "content": "hi"}]}
CONSTRAINT = """
  - name: europeans-stay-in-europe
    when: request.headers["x-user-region"] == "eu"
    require: {region: [eu-*, local]}
"""


def text(upstream, networks):
    """`cloud` is in eu-west, `second` in the US; peers in `networks` may say where the user is."""
    base = policy_text(upstream.base_url, second_url=upstream.base_url)
    proxies = f"trusted_proxies: [{{name: mesh, networks: [{networks}], headers: [X-User-Region]}}]\n"
    return (
        base.replace("constraints:", f"constraints:{CONSTRAINT}", 1).replace(
            "- {backend: cloud, model: scripted, price: {input: 1, output: 2}, max_output_tokens: 1000}\n", "", 1
        )
        + proxies
    )


async def status(gateway, *headers):
    async with aiohttp.ClientSession() as session:
        sent = [("authorization", gateway.auth["authorization"]), *headers]
        async with session.post(f"{gateway.base_url}/chat/completions", json=BODY, headers=sent) as response:
            return response.status


async def test_header_of_a_trusted_peer_is_a_fact(start_gateway, upstream):
    """The peer's word decides; without it, or with two of them, the constraint fails closed."""
    gateway = await start_gateway(text(upstream, "127.0.0.0/8"), edge=False)
    assert await status(gateway, ("x-user-region", "us")) == 200
    assert await status(gateway, ("X-User-Region", "eu")) == 403
    assert await status(gateway) == 403
    assert await status(gateway, ("x-user-region", "us"), ("x-user-region", "eu")) == 403


async def test_header_of_anybody_else_is_no_fact(start_gateway, upstream):
    """A client that sets the header itself says nothing with it."""
    gateway = await start_gateway(text(upstream, "10.0.0.0/8"), edge=False)
    assert await status(gateway, ("x-user-region", "us")) == 403
    assert await status(gateway, ("x-user-region", "us"), ("x-forwarded-for", "10.0.0.1")) == 403
