"""The SDKs for Node: OpenAI's, Anthropic's and Vercel's AI SDK; `make install` brings them where there is Node."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tests.gateway_fixture import KEY, policy_text
from tests.upstream.script import Script

FOLDER = Path(__file__).parent / "node"
DRAFT_ROUTE = "mode: draft_refine\n    models: [large]\n    fallback: [small]\n    draft: {max_tokens: 24}"
TEXT = "Paris it is."
ASK = "What is the capital of France?"
SLOW = json.dumps({"script": {"chunks": 400, "delay_s": 0.05}})
OPENAI = ("openai chat", "openai chat helper", "openai responses", "ai openai (responses)", "ai openai (chat)")
CLIENTS = (*OPENAI, "ai compatible", "anthropic messages", "ai anthropic")
NOT_THERE = {name: "not_found_error" if "anthropic" in name else "model_not_found" for name in CLIENTS}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("node"), reason="no Node here")
@pytest.mark.skipif(not (FOLDER / "node_modules").is_dir(), reason="no `npm ci` in tests/clients/node")
async def test_node_clients_show_the_final_with_and_without_drafts(start_gateway, upstream):
    """Each SDK shows the same text plain and streamed, drafts or not, its own error, and can leave in the middle."""
    upstream.default = Script(text=TEXT, think_s=0.3)
    gateway = await start_gateway(policy_text(upstream.base_url, route=DRAFT_ROUTE))
    process = await asyncio.create_subprocess_exec(
        *("node", "clients.mjs", gateway.url, KEY, ASK, SLOW), cwd=FOLDER, stdout=asyncio.subprocess.PIPE
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 100)
    finally:
        if process.returncode is None:
            process.kill()
    found = dict(json.loads(line) for line in out.splitlines() if line.startswith(b"["))
    wanted = {f"{name} {draft}": [TEXT, TEXT] for name in CLIENTS for draft in ("off", "frames")}
    wanted |= {f"{name} error": [404, code] for name, code in NOT_THERE.items()}
    wanted |= {f"{name} left": True for name in CLIENTS}
    assert found == wanted
    async with asyncio.timeout(5):
        while upstream.open:
            await asyncio.sleep(0.02)
    assert len(upstream.disconnects) == len(CLIENTS)
