"""The dashboard: pages without data, a strict policy for their content, and a playground that asks as a tenant."""

import json
import re
from importlib import resources

import aiohttp

from gateway.tenants.keys import make_key
from tests.gateway_fixture import policy_text

ADMIN, DIGEST = make_key()
BEARER = {"authorization": f"Bearer {ADMIN}"}
STATIC = resources.files("gateway.server.admin") / "static"


async def test_pages_need_no_key_and_hold_nothing(start_gateway, upstream):
    """Each file is served with a policy that forbids whatever does not come from here, and nothing is inline."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, admin_port=0, admin_key=DIGEST)
    async with aiohttp.ClientSession() as session:
        names = ["", *(f"static/{file.name}" for file in STATIC.iterdir() if file.is_file())]
        assert len(names) > 6
        for name in names:
            page = await session.get(f"{gateway.admin_url}/admin/{name}")
            assert page.status == 200, name
            rules = page.headers["content-security-policy"]
            assert "default-src 'none'" in rules
            assert "unsafe" not in rules
            assert page.headers["x-content-type-options"] == "nosniff"
        text = await (await session.get(f"{gateway.admin_url}/admin")).text()
        assert re.findall(r"<script(?![^>]*src=)|<style| on[a-z]+=|style=|https?://", text) == []
        for name in ("nothing.js", "..%2f__init__.py", "%2e%2e/routes.py", "app.py", ".js"):
            assert (await session.get(f"{gateway.admin_url}/admin/static/{name}")).status == 404


async def test_the_playground_asks_as_a_tenant(start_gateway, upstream):
    """With the admin key alone: under the tenant's policy, from its budget, in its log; others are refused."""
    budgets = "budgets: [{tokens: 1_000, per: day}]"
    gateway = await start_gateway(
        policy_text(upstream.base_url, budgets=budgets), edge=False, admin_port=0, admin_key=DIGEST
    )
    url = f"{gateway.admin_url}/admin/v1/playground?tenant="
    asked = {"model": "large", "stream": True, "draft": "frames", "messages": [{"role": "user", "content": "hello"}]}
    async with aiohttp.ClientSession() as session:
        assert (await session.post(url + "acme", json=asked)).status == 401
        assert (await session.post(url + "acme", json=asked, headers=gateway.auth)).status == 401
        assert (await session.post(url + "nobody", json=asked, headers=BEARER)).status == 404
        answer = await session.post(url + "acme", json=asked, headers=BEARER)
        events = [line for line in (await answer.text()).split("\n\n") if line.startswith("data: {")]
        assert json.loads(events[0].removeprefix("data: "))["choices"]
    record = gateway.services.recent.newest(1)[0]
    assert (record.tenant, record.key, record.hold, record.status) == ("acme", "playground", "settled", 200)
    assert gateway.services.metrics.render().count(b'firstdraft_requests_total{mode="cloud_only"') == 1
