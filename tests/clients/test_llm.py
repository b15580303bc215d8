"""Simon Willison's `llm` on the command line, set up as its users do: in `extra-openai-models.yaml`."""

import asyncio
import json
import os
import signal
import sys

import pytest

from tests.gateway_fixture import KEY, policy_text
from tests.upstream.script import Script

ASK = "What is the capital of France?"
DRAFT_ROUTE = "mode: draft_refine\n    models: [large]\n    fallback: [small]\n    draft: {max_tokens: 24}"
MODELS = """
- {{model_id: plain, model_name: large, api_base: "{url}", api_key_name: ours}}
- model_id: drafts
  model_name: large
  api_base: "{url}"
  api_key_name: ours
  headers: {{x-firstdraft-draft: frames}}
- {{model_id: unknown, model_name: lerge, api_base: "{url}", api_key_name: ours}}
"""


@pytest.fixture
async def llm(start_gateway, upstream, tmp_path):
    """Starts `llm` with its settings in a folder of its own."""
    gateway = await start_gateway(policy_text(upstream.base_url, route=DRAFT_ROUTE))
    (tmp_path / "extra-openai-models.yaml").write_text(MODELS.format(url=gateway.base_url))
    (tmp_path / "keys.json").write_text(json.dumps({"ours": KEY}))
    environ = os.environ | {"LLM_USER_PATH": str(tmp_path)}

    async def start(*arguments):
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llm", *arguments),
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    return start


async def run(llm, *arguments):
    """Exit status, what it printed, and what it complained of."""
    process = await llm(*arguments)
    out, complaints = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode().strip(), complaints.decode()


async def test_it_shows_the_final_plain_and_streamed_with_and_without_drafts(llm, upstream):
    """What is printed is the backend's text, and nothing else."""
    upstream.default = Script(text="Paris it is.", think_s=0.3)
    for model in ("plain", "drafts"):
        for how in ((), ("--no-stream",)):
            assert await run(llm, "-m", model, *how, "--no-log", ASK) == (0, "Paris it is.", "")


async def test_an_unknown_model_is_told(llm):
    """The gateway's sentence, which names the nearest model, reaches the terminal."""
    status, out, complaints = await run(llm, "-m", "unknown", "--no-log", ASK)
    assert status == 1
    assert out == ""
    assert "lerge" in complaints


async def test_a_prompt_that_is_interrupted_ends_the_backend(llm, upstream):
    """Ctrl-C in mid-answer, again where Python lost it in a callback: nothing goes on for it."""
    slow = json.dumps({"script": {"chunks": 2000, "delay_s": 0.05}})
    process = await llm("-m", "plain", "--no-log", slow)
    await asyncio.wait_for(process.stdout.read(1), 60)
    ended = asyncio.create_task(process.communicate())
    for _ in range(15):
        process.send_signal(signal.SIGINT)
        if (await asyncio.wait([ended], timeout=3))[0]:
            break
    assert ended.done()
    async with asyncio.timeout(5):
        while upstream.open:
            await asyncio.sleep(0.02)
    assert len(upstream.disconnects) == 1
