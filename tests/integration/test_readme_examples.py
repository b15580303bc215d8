"""What the README tells people to type, typed."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from pathlib import Path

import httpx

from tests.gateway_fixture import KEY, policy_text

README = (Path(__file__).parents[2] / "README.md").read_text()
ROUTE = "mode: draft_refine\n    models: [large]"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def aimed(text, gateway):
    """An example with this test's gateway and key in the place of the README's."""
    return (
        text.replace("http://127.0.0.1:8080", gateway.url)
        .replace('"none"', f'"{KEY}"')
        .replace("Bearer none", f"Bearer {KEY}")
    )


async def run(*command):
    """Standard output of a command that has to succeed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, error.decode()
    return out.decode()


async def test_python_examples(start_gateway, upstream):
    """The Python examples run: one prints the final, one the draft with its verdict and the final."""
    gateway = await start_gateway(policy_text(upstream.base_url, route=ROUTE))
    whole, streamed, *_ = blocks("python")
    assert (await run(sys.executable, "-c", aimed(whole, gateway))).strip()
    printed = await run(sys.executable, "-c", aimed(streamed, gateway))
    assert "final: " in printed
    assert re.search(r"^draft: (confirmed|revised|replaced|promoted|dropped) ", printed, re.MULTILINE)


async def test_python_examples_of_later_answers(start_gateway, upstream):
    """One fetches its final after the draft, the other runs a batch and prints each line's answer."""
    gateway = await start_gateway(policy_text(upstream.base_url, route=ROUTE))
    fetched, batch = blocks("python")[2:4]
    printed = await run(sys.executable, "-c", aimed(fetched, gateway))
    assert "draft: " in printed
    assert "final: " in printed
    printed = await run(sys.executable, "-c", aimed(batch, gateway))
    assert re.findall(r"^city-\d", printed, re.MULTILINE) == ["city-0", "city-1", "city-2"]


async def test_curl_example(start_gateway, upstream):
    """What the curl example sends is answered with a stream that has a draft and an end."""
    gateway = await start_gateway(policy_text(upstream.base_url, route=ROUTE))
    words = shlex.split(aimed(blocks("sh")[0], gateway).replace("\\\n", " "))
    url = next(word for word in words if word.startswith("http"))
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(url, headers=headers, content=words[words.index("-d") + 1])
    assert answer.status_code == 200, answer.text
    assert '"draft":{' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
