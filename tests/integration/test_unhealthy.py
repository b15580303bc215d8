"""A backend that says that it is down, as users see it: left alone, explained, and back again."""

import asyncio
import hashlib
import json
import sys

import aiohttp
import httpx
import pytest

from gateway.policy.load import load_policy
from gateway.policy.replay import read
from gateway.routing.explain import explain
from tests.gateway_fixture import KEY
from tests.integration.process_fixture import Process, short_folder
from tests.upstream.scripted import ScriptedUpstream

pytestmark = pytest.mark.slow

POLICY = """
backends:
  first: {{type: openai, base_url: "{first}", region: eu-west, health: {{path: /health, every: 1s}}}}
  second: {{type: openai, base_url: "{second}", region: eu-north}}
models:
  large:
    - {{backend: first, model: l, price: free}}
    - {{backend: second, model: l, price: free}}
routes:
  - {{name: chat, mode: cloud_only}}
tenants:
  acme: {{keys: [{{name: prod, sha256: {hash}}}]}}
"""
BODY = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}


async def answered_by(session: aiohttp.ClientSession, url: str) -> str:
    async with session.post(f"{url}/v1/chat/completions", json=BODY, headers={"x-api-key": KEY}) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["x-firstdraft-deployment"]


async def test_backend_that_is_down_is_passed_over_with_its_reason_and_comes_back():
    """Its check fails: requests pass it over, readiness, log and decision say why; it answers: they go there again."""
    with short_folder() as folder:
        async with ScriptedUpstream() as first, ScriptedUpstream() as second, aiohttp.ClientSession() as session:
            policies, state = folder / "policies", folder / "state"
            policies.mkdir()
            hashed = hashlib.sha256(KEY.encode()).hexdigest()
            text = POLICY.format(first=first.base_url, second=second.base_url, hash=hashed)
            (policies / "policy.yaml").write_text(text)
            async with Process(policies, state, "--no-edge", "--record-decisions", "1") as gateway:
                await gateway.ready()
                assert await answered_by(session, gateway.url) == "first/l"

                first.health_status = 503
                await gateway.until(lambda: any(line.get("event") == "backend_down" for line in gateway.log), 30)
                reached = len(first.requests)
                assert {await answered_by(session, gateway.url) for _ in range(5)} == {"second/l"}
                assert len(first.requests) == reached
                await says_why(gateway, policies, state)

                first.health_status = 200
                await gateway.until(lambda: any(line.get("event") == "backend_up" for line in gateway.log), 30)
                assert await answered_by(session, gateway.url) == "first/l"


async def says_why(gateway: Process, policies, state) -> None:
    """Readiness has the check's reason, and the recorded facts explain the order."""
    async with httpx.AsyncClient() as client:
        ready = (await client.get(f"{gateway.url}/readyz")).text
    assert "first/l" in ready
    assert "503" in ready
    file = state / "decisions.jsonl"
    await gateway.until(lambda: file.exists() and b"first/l" in file.read_bytes(), 10)
    last = read(file.read_bytes().splitlines())[-1].facts
    assert last.unhealthy == {"first/l"}
    told = explain(load_policy(policies, {}), last)
    assert [story.id for story in told.deployments] == ["second/l", "first/l"]
    assert "fails now" in told.deployments[1].why
    command = (f"--policies {policies} --tenant acme --model large --unhealthy first/l --json").split()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli.main", "policy", "explain", *command), stdout=asyncio.subprocess.PIPE
    )
    shown = json.loads((await process.communicate())[0])
    assert shown["deployments"] == ["second/l", "first/l"]
