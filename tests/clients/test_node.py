"""The SDKs for Node: OpenAI's, Anthropic's and Vercel's AI SDK; after `npm install` in `tests/clients/node`."""

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
SHOWN = {
    "openai responses": [TEXT, 3],
    "anthropic messages": [{"type": "text", "text": TEXT}],
    "openai chat": TEXT,
    "ai openai (responses)": [TEXT, TEXT],
    "ai openai (chat)": [TEXT, TEXT],
    "ai anthropic": [TEXT, TEXT],
    "ai compatible": [TEXT, TEXT],
}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("node"), reason="no Node here")
@pytest.mark.skipif(not (FOLDER / "node_modules").is_dir(), reason="no `npm install` in tests/clients/node")
async def test_node_clients_show_the_final_with_and_without_drafts(start_gateway, upstream):
    """Each SDK shows the same text plain and streamed, drafts or not, and its own error for an unknown model."""
    upstream.default = Script(text=TEXT, think_s=0.7)
    gateway = await start_gateway(policy_text(upstream.base_url, route=DRAFT_ROUTE))
    process = await asyncio.create_subprocess_exec(
        *("node", "clients.mjs", gateway.url, KEY), cwd=FOLDER, stdout=asyncio.subprocess.PIPE
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 90)
    finally:
        if process.returncode is None:
            process.kill()
    found = dict(json.loads(line) for line in out.splitlines() if line.startswith(b"["))
    wanted = {f"{name} {draft}": value for name, value in SHOWN.items() for draft in ("off", "frames")}
    wanted["anthropic error"], wanted["openai error"] = [404, "not_found_error"], [404, "model_not_found"]
    assert found == wanted
