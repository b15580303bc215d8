"""The doctor looks at a real gateway between a real client and a scripted backend."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from click.testing import CliRunner

from gateway.cli.doctor import doctor
from tests.gateway_fixture import policy_text
from tests.upstream.script import Script

pytestmark = pytest.mark.store


@pytest.mark.parametrize(
    ("script", "phase"),
    [(Script(text="a b c", think_s=0.3), "prefill"), (Script(text="a b c d", delay_s=0.1), "decode")],
)
async def test_the_slow_phase_of_a_backend_is_found(start_gateway, upstream, script, phase):
    """A backend that reads slowly, and one that writes slowly, as its answers' times show it."""
    upstream.default = script
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    body = {"model": "large", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    async with httpx.AsyncClient(headers=gateway.auth, base_url=gateway.base_url) as client:
        for _ in range(5):
            assert (await client.post("/chat/completions", json=body)).status_code == 200
    done = await asyncio.to_thread(CliRunner().invoke, doctor, ["--url", gateway.url])
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert f"Slow phase: {phase} at the backend (cloud/scripted)" in told
    (tried,) = gateway.services.recent.get("acme", None).attempts
    assert tried.network_s is not None
    assert 0 < tried.network_s < 0.1


async def test_a_gateway_that_is_not_there():
    """One line, and exit status 1."""
    done = await asyncio.to_thread(CliRunner().invoke, doctor, ["--url", "http://127.0.0.1:1"])
    assert done.exit_code == 1
    assert "cannot be reached" in done.output
