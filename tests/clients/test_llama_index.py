"""LlamaIndex' `OpenAILike`, with the `openai` that it wants; `make install` brings both."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.gateway_fixture import KEY, policy_text
from tests.upstream.script import Script

FOLDER = Path(__file__).parent / "llama_index"
PYTHON = FOLDER.parents[2] / ".venv-llama-index/bin/python"
DRAFT_ROUTE = "mode: draft_refine\n    models: [large]\n    fallback: [small]\n    draft: {max_tokens: 24}"
TEXT = "Paris it is."
SLOW = json.dumps({"script": {"chunks": 400, "delay_s": 0.05}})


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="its virtual environment is not there")
async def test_it_shows_the_final_with_and_without_drafts(start_gateway, upstream):
    """The same text completed, chatted and streamed, whatever is asked of drafts; errors and leaving as in the SDK."""
    upstream.default = Script(text=TEXT, think_s=0.3)
    gateway = await start_gateway(policy_text(upstream.base_url, route=DRAFT_ROUTE))
    process = await asyncio.create_subprocess_exec(
        *(PYTHON, "clients.py", gateway.base_url, KEY, "What is the capital of France?", SLOW),
        cwd=FOLDER,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 100)
    finally:
        if process.returncode is None:
            process.kill()
    found = dict(json.loads(line) for line in out.splitlines() if line.startswith(b"["))
    wanted = {
        f"{how} {draft}": TEXT for how in ("complete", "chat", "stream") for draft in ("off", "frames", "reasoning")
    }
    assert found == wanted | {"openai": "2", "error": [404, "model_not_found"], "left": True}
    async with asyncio.timeout(5):
        while upstream.open:
            await asyncio.sleep(0.02)
