"""Signed tokens beside API keys: what a real issuer signs is taken, and nothing else."""

import asyncio
import base64
import hmac
import json
import time

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization

from gateway.tenants import issuer_keys
from tests.gateway_fixture import policy_text
from tests.issuer import AUDIENCE, Issuer

BODY = {"model": "large", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


@pytest.fixture
async def issuer():
    async with Issuer() as server:
        yield server


@pytest.fixture
def start(start_gateway, upstream, issuer):
    """A gateway that trusts the issuer; `more` lines are added to what policy says of it."""

    async def start(*more, claims="{tenant: org, feature: app, labels: data.labels}", route=""):
        lines = [f"name: sso, issuer: '{issuer.url}', audience: {AUDIENCE}, claims: {claims}", *more]
        text = policy_text(upstream.base_url, route=route) + f"issuers:\n  - {{{', '.join(lines)}}}\n"
        return await start_gateway(text, edge=False)

    return start


async def ask(gateway, token, path="/chat/completions", **headers):
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {token}", **headers}) as session:
        response = await session.post(f"{gateway.base_url}{path}", json=BODY)
        return response.status, await response.json(), response.headers


def last(gateway):
    return gateway.services.recent.newest(1)[0]


async def test_a_token_stands_for_its_tenant(start, issuer):
    """Tenant, feature and labels come from its claims; keys are fetched once, and API keys work beside it."""
    gateway = await start()
    token = issuer.token(app="chat", data={"labels": ["internal"]})
    for _ in range(3):
        assert (await ask(gateway, token))[0] == 200
    record = last(gateway)
    assert (record.tenant, record.key, record.feature) == ("acme", "sso", "chat")
    assert "internal" in record.labels
    assert issuer.fetches == 1
    assert (await ask(gateway, gateway.auth["authorization"].removeprefix("Bearer ")))[0] == 200
    assert (await ask(gateway, token, **{"x-firstdraft-feature": "other"}))[0] == 400


async def test_a_constraint_sees_the_labels_of_a_token(start, issuer):
    """A label that a token adds narrows as any other does, and its client cannot take it away."""
    gateway = await start()
    status, answer, _ = await ask(gateway, issuer.token(data={"labels": "health"}))
    assert (status, answer["error"]["code"]) == (403, "policy_denied")


async def test_values_of_a_claim_can_be_mapped(start, issuer):
    """Where policy says what values mean, no other value is a tenant, not even a tenant's own name."""
    gateway = await start("tenants: {org-17: other}")
    assert (await ask(gateway, issuer.token(org="org-17")))[0] == 200
    assert last(gateway).tenant == "other"
    assert (await ask(gateway, issuer.token(org="acme")))[0] == 401


def forged(issuer):
    """Tokens that must not be taken, each with a word of why."""
    (key,) = issuer.keys.values()
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head, body, signature = issuer.token().split(".")
    raised = json.loads(base64.urlsafe_b64decode(body + "==")) | {"org": "other"}
    other = base64.urlsafe_b64encode(json.dumps(raised).encode()).rstrip(b"=").decode()

    def unsigned(header):
        return base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode() + f".{body}."

    symmetric = unsigned({"alg": "HS256", "kid": "one"})
    made = hmac.digest(public, symmetric.removesuffix(".").encode(), "sha256")
    signed = base64.urlsafe_b64encode(made).rstrip(b"=").decode()
    yield issuer.token(exp=time.time() - 120), "expired"
    yield issuer.token(nbf=time.time() + 120), "not valid yet"
    yield issuer.token(aud="someone-else"), "audience"
    yield issuer.token(aud=None), "aud"
    yield issuer.token(exp=None), "exp"
    yield issuer.token(exp=10**400), "claims"
    yield issuer.token(iss="https://evil.example"), "issuer"
    yield issuer.token(org=None), "org"
    yield issuer.token(org="nobody"), "nobody"
    yield issuer.token(app="../.."), "feature"
    yield issuer.token(data={"labels": ["Not A Label"]}), "labels"
    yield issuer.token(key_id="unknown"), "key"
    yield issuer.token(algorithm="PS256"), "algorithm"
    yield unsigned({"alg": "none"}), "algorithm"
    yield symmetric + signed, "algorithm"
    yield f"{head}.{other}.{signature}", "signature"
    yield "ey.a.b", "no signed token"
    yield "ey" + "A" * 4_000 + ".b.c", "no signed token"


async def test_no_other_token_is_taken(start, issuer):
    """Whatever is wrong with it, it is a 401 that says why, in the body and in `www-authenticate`."""
    gateway = await start()
    for token, why in forged(issuer):
        status, answer, headers = await ask(gateway, token)
        assert (status, answer["error"]["code"]) == (401, "invalid_token"), why
        assert why in answer["error"]["message"]
        assert headers["www-authenticate"].startswith('Bearer realm="firstdraft", error="invalid_token"')
    status, answer, _ = await ask(gateway, "ey.a.b", "/messages")
    assert (status, answer["error"]["type"]) == (401, "authentication_error")


async def test_a_rotated_key_is_found_and_an_old_one_forgotten(start, issuer, monkeypatch):
    """A token with a new key is taken at once; one with a key that the issuer took back is taken no more."""
    monkeypatch.setattr(issuer_keys, "RETRY_S", 0.0)
    gateway = await start()
    old = issuer.token()
    assert (await ask(gateway, old))[0] == 200
    issuer.rotate("two")
    assert (await ask(gateway, issuer.token()))[0] == 200
    assert (await ask(gateway, old))[0] == 401


async def test_unknown_keys_are_no_flood_at_the_issuer(start, issuer):
    """Tokens with made-up keys cost the issuer one request in a while, however many they are."""
    gateway = await start()
    assert (await ask(gateway, issuer.token()))[0] == 200
    found = await asyncio.gather(*(ask(gateway, issuer.token(key_id=f"made-up-{number}")) for number in range(20)))
    assert {status for status, _, _ in found} == {401}
    assert issuer.fetches <= 2


@pytest.mark.parametrize(
    "answer", [b"garbage", b"[]", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', b"x" * 600_000]
)
async def test_an_issuer_that_babbles_is_503(start, issuer, answer):
    """Nothing can be said about a token: that is not the client's fault, and another try may help."""
    gateway = await start()
    issuer.answer = answer
    status, said, headers = await ask(gateway, issuer.token())
    assert (status, said["error"]["code"]) == (503, "identity_unavailable")
    assert headers["retry-after"]


async def test_an_issuer_that_hangs_keeps_nobody_waiting_for_long(start, issuer, monkeypatch):
    """Known tokens and known keys serve on while it hangs; without keys it is a 503; API keys are not touched."""
    monkeypatch.setattr(issuer_keys, "_FETCH_S", 0.5)
    monkeypatch.setattr(issuer_keys, "REFRESH_S", 0.0)
    gateway = await start()
    issuer.hangs = True
    first = asyncio.create_task(ask(gateway, issuer.token()))
    assert (await ask(gateway, gateway.auth["authorization"].removeprefix("Bearer ")))[0] == 200
    assert (await first)[0] == 503
    issuer.hangs = False
    monkeypatch.setattr(issuer_keys, "RETRY_S", 0.0)
    assert (await ask(gateway, issuer.token()))[0] == 200
    issuer.hangs = True
    for _ in range(3):
        assert (await ask(gateway, issuer.token(sub=str(_))))[0] == 200


async def test_keys_that_are_too_old_serve_no_more(start, issuer, monkeypatch):
    """An issuer that is gone is done without for as long as policy says, and no longer."""
    monkeypatch.setattr(issuer_keys, "RETRY_S", 0.0)
    gateway = await start("keys_kept: 1s")
    token = issuer.token()
    assert (await ask(gateway, token))[0] == 200
    issuer.answer = b"gone"
    await asyncio.sleep(1.1)
    assert (await ask(gateway, token))[0] == 503


async def test_a_cached_hit_ends_with_its_token(start, issuer):
    """The shortcut for repeated requests is no way around the expiry of a token."""
    gateway = await start("leeway: 1ms", route="mode: cloud_only\n    models: [large]\n    cache: {ttl: 1h}")
    token = issuer.token(exp=int(time.time()) + 2)
    for _ in range(4):
        assert (await ask(gateway, token))[0] == 200
    assert last(gateway).cache == "hit"
    await asyncio.sleep(2.2)
    assert (await ask(gateway, token))[0] == 401


async def test_tokens_mean_nothing_where_no_issuer_is_named(start_gateway, upstream, issuer):
    """Without issuers a token is an unknown key, and nobody is asked about it."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    status, answer, _ = await ask(gateway, issuer.token())
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert issuer.fetches == 0
