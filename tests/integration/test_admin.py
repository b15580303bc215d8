"""The admin surface: who may use it, what it says, and what it never says."""

import asyncio
import json

import aiohttp
import pytest

from gateway.errors import SettingsError
from gateway.server.admin.access import admin_key_hash
from gateway.server.admin.routes import ROUTES
from gateway.server.run import serve
from gateway.settings import Settings
from gateway.tenants.keys import make_key
from tests.gateway_fixture import KEY, policy_text

ADMIN, DIGEST = make_key()
BEARER = {"authorization": f"Bearer {ADMIN}"}
SECRET = "the secret word of this prompt is xylophone"
BODY = {"model": "large", "messages": [{"role": "user", "content": SECRET}]}
GETS = [one.path for one in ROUTES if one.method == "GET" and "{" not in one.path and not one.operation.is_open]


async def get(url, path, **headers):
    async with aiohttp.ClientSession() as session, session.get(f"{url}{path}", headers=headers) as response:
        return response.status, await response.text()


async def test_it_says_what_the_gateway_does_and_no_prompt(start_gateway, upstream):
    """Status, policy, members, deployments and requests can be read; no prompt, no answer, no key."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, admin_port=0, admin_key=DIGEST)
    async with aiohttp.ClientSession(headers=gateway.auth) as session:
        assert (await session.post(f"{gateway.base_url}/chat/completions", json=BODY)).status == 200
    await gateway.services.members.report(gateway.services.policy.current.version, refused=False)
    said = {}
    for path in GETS:
        status, said[path] = await get(gateway.admin_url, path, **BEARER)
        assert status == 200, path
        for secret in ("xylophone", "scripted upstream", KEY, "sk-upstream", ADMIN, DIGEST):
            assert secret not in said[path], path
    assert json.loads(said["/admin/v1/status"])["parts"]["store"]["ok"]
    version = gateway.services.policy.current.version
    assert json.loads(said["/admin/v1/policy"])["version"] == version
    assert json.loads(said["/admin/v1/policy"])["history"][0]["version"] == version
    assert [one["version"] for one in json.loads(said["/admin/v1/members"])["members"]] == [version]
    shown = {one["backend"]: one for one in json.loads(said["/admin/v1/deployments"])["deployments"]}
    cloud, edge = shown["cloud"], shown["edge"]
    assert (cloud["id"], cloud["models"], cloud["healthy"]) == ("cloud/scripted", ["large"], True)
    assert (edge["healthy"], edge["trouble"]["state"]) == (False, "off")
    (request,) = json.loads(said["/admin/v1/requests"])["requests"]
    assert (request["tenant"], request["status"], request["client"]) == ("acme", 200, "127.0.0.1")
    assert "firstdraft_requests_total" in said["/admin/metrics"]


async def test_it_wants_its_own_key(start_gateway, upstream):
    """Without the key, with a tenant's, or on the gateway's port there is nothing; tenants' URLs take no admin key."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, admin_port=0, admin_key=DIGEST)
    for path in GETS:
        for headers in ({}, gateway.auth, {"authorization": f"Bearer {DIGEST}"}):
            status, text = await get(gateway.admin_url, path, **headers)
            assert (status, json.loads(text)["error"]["code"]) == (401, "invalid_api_key")
        assert (await get(gateway.url, path, **BEARER))[0] == 404
    assert (await get(gateway.url, "/v1/models", **BEARER))[0] == 401
    assert (await get(gateway.admin_url, "/v1/models", **gateway.auth))[0] == 404
    assert (await get(gateway.admin_url, "/metrics"))[0] == 401
    assert (await get(gateway.url, "/metrics"))[0] == 200


async def test_without_a_port_it_is_a_path(start_gateway, upstream):
    """With a key alone it is under `/admin` of the gateway's port; `/metrics` can move there."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, admin_key=DIGEST, metrics_on="admin")
    assert gateway.admin_url is None
    assert (await get(gateway.url, "/admin/v1/status", **BEARER))[0] == 200
    assert (await get(gateway.url, "/admin/v1/status", **gateway.auth))[0] == 401
    assert (await get(gateway.url, "/metrics"))[0] == 404
    assert (await get(gateway.url, "/admin/metrics"))[0] == 401
    assert (await get(gateway.url, "/admin/metrics", **BEARER))[0] == 200


async def test_without_a_key_only_this_machine_is_served(start_gateway, upstream):
    """No page of another site, no name that was rebound, nobody behind a proxy; and off it is off."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, admin_port=0)
    assert (await get(gateway.admin_url, "/admin/v1/status"))[0] == 200
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}, {"x-forwarded-for": "192.0.2.1"}):
        assert (await get(gateway.admin_url, "/admin/v1/status", **headers))[0] == 401
    other = await start_gateway(policy_text(upstream.base_url), edge=False, state=gateway.policies.parent / "other")
    assert (await get(other.url, "/admin/v1/status"))[0] == 404


async def test_a_rollback_comes_into_force(start_gateway, upstream):
    """The version before is written back and taken up; one that is not kept is a 404."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, admin_port=0)
    file, before = gateway.policies / "policy.yaml", gateway.services.policy.current.version
    file.write_text(policy_text(upstream.base_url, route="mode: cloud_only\n    models: [large, small]"))
    await _until(lambda: gateway.services.policy.current.version != before)
    url = f"{gateway.admin_url}/admin/v1/policy/rollback"
    async with aiohttp.ClientSession() as session:
        assert (await session.post(url, json={"to": "none"})).status == 404
        assert (await session.post(url, data=b"[")).status == 400
        done = await session.post(url)
        assert (await done.json())["restored"] == before
    await _until(lambda: gateway.services.policy.current.version == before)


async def _until(true):
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.05)


async def test_open_to_others_without_a_key_does_not_start(tmp_path):
    """An admin port that other machines reach needs a key; a key's file has to hold one."""
    (tmp_path / "policies").mkdir()
    settings = Settings(policies=tmp_path / "policies", admin_port=0, admin_host="0.0.0.0")
    with pytest.raises(SettingsError, match="anyone could take the gateway over"):
        await serve(settings)
    file = tmp_path / "key"
    for content, said in ((None, "cannot be read"), ("short", "holds no key"), ("two words of some length", "no key")):
        if content is not None:
            file.write_text(content)
        with pytest.raises(SettingsError, match=said):
            admin_key_hash(Settings(admin_key=f"file:{file}"))
    for content in (ADMIN, DIGEST.upper()):
        file.write_text(content + "\n")
        assert admin_key_hash(Settings(admin_key=f"file:{file}")) == DIGEST


async def test_every_route_of_it_is_described(start_gateway, upstream):
    """Its own document has all its URLs."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, admin_port=0)
    _, text = await get(gateway.admin_url, "/admin/v1/openapi.json")
    assert {(method.upper(), path) for path, item in json.loads(text)["paths"].items() for method in item} == {
        (route.method, route.path) for route in ROUTES
    }
