"""Ten minutes of real conversations replayed: what drafts do for the first visible text, and a cascade for the cost.

    python -m tests.benchmarks.replay --plot tests/benchmarks/replay.svg

Arrivals, prompt lengths and answer lengths are those of the conversation trace in `tests/data`, scaled to a small
machine: every `--every`th request, `--slower` times as far apart, its prompt `--shorter` times as long for the edge
(which reads some hundreds of tokens a second here). The backend does as if it were a large model: first token after
0.3 s and a second for each 2,500 prompt tokens of the trace, with a spread (log-normal, σ = 0.25); 40 tokens a second;
the usage is the trace's own. A prompt is a conversation of plain facts in one word, as long as the trace says, with one
more question at its end: what the edge writes is real, and so is its confidence, calibrated with other questions.

Each request is sent twice at the same moment, as one that wants no draft and as one that does: the first asks nothing
of this machine but to wait. Then all of them are sent once more to a route with a cascade.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import json
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.benchmarks.cascade import firstdraft, free_port, running
from tests.upstream.recorded import DATA, Recordings

_POLICY = """
backends:
  edge: {{type: edge, model: smollm2-135m-instruct, region: local}}
  large: {{type: openai, base_url: "{url}", region: local}}
models:
  large: [{{backend: large, model: traced, price: {{input: 2.5, output: 10}}, max_output_tokens: 2000}}]
routes:
  - {{name: cascade, when: request.feature == "cascade", mode: cascade, cascade: {{threshold: {threshold}}}}}
  - {{name: reference, when: request.feature == "reference", mode: cloud_only}}
  - {{name: chat, mode: draft_refine, draft: {{max_tokens: 32}}}}
tenants:
  guest: {{keyless: true}}
"""
_SHOTS = 4
_TOKENS_PER_PAIR = 20
"""Of a question and its answer of one word."""


@dataclass
class Traced:
    """One request of the trace."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    messages: list[dict[str, str]] = field(default_factory=list)
    ttft_s: float = 0.0


class TracedBackend:
    """Answers when, as long and for as many tokens as the request's field `traced` says."""

    def __init__(self) -> None:
        self._recordings = Recordings()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        traced = body.get("traced") or {"ttft_s": 0.0, "prompt_tokens": 50, "output_tokens": 2}
        text = self._recordings.answer(body["messages"][-1]["content"])
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.sleep(traced["ttft_s"])
        await response.write(_chunk({"role": "assistant", "content": text}))
        await asyncio.sleep(traced["output_tokens"] / 40)
        await response.write(_chunk({}, "stop"))
        used, made = traced["prompt_tokens"], traced["output_tokens"]
        usage = {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made}
        head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "traced"}
        await response.write(b"data: " + json.dumps({**head, "choices": [], "usage": usage}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "traced"}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


def trace(*, every: int, slower: float, shorter: float, count: int) -> list[Traced]:
    """The requests to send, with prompts that nobody else has."""
    chance = random.Random(1)
    with (DATA / "azure_llm_2023_conversation_10_minutes.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    with (DATA / "plain_facts.csv").open(newline="") as file:
        facts = [(row["question"], row["answer"]) for row in csv.DictReader(file)]
    shots, asked = facts[:_SHOTS], facts[_SHOTS + 78 :]
    found = []
    for row in rows[: every * count : every]:
        one = Traced(float(row["seconds"]) / every * slower, int(row["prompt_tokens"]), int(row["output_tokens"]))
        pairs = max(_SHOTS, round(one.prompt_tokens / shorter / _TOKENS_PER_PAIR))
        chosen = [*shots, *chance.sample(facts[_SHOTS:], max(0, min(pairs, 120) - _SHOTS))]
        for question, answer in chosen:
            one.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        one.messages.append({"role": "user", "content": chance.choice(asked)[0]})
        one.ttft_s = 0.3 + one.prompt_tokens / 2_500 * chance.lognormvariate(0, 0.25)
        found.append(one)
    return found


@dataclass
class Seen:
    """What one client saw. Seconds since it asked; None: never."""

    visible_s: float | None = None
    drafted_first: bool = False
    final_s: float | None = None
    cost_usd: float = 0.0
    cascade: str = ""


async def send(session: aiohttp.ClientSession, url: str, one: Traced, began: float, **how: Any) -> Seen:
    """Ask at the request's time, and look when what comes."""
    await asyncio.sleep(began + one.at_s - time.monotonic())
    traced = {"ttft_s": one.ttft_s, "prompt_tokens": one.prompt_tokens, "output_tokens": one.output_tokens}
    body = {"model": "large", "messages": one.messages, "stream": True, "temperature": 0, "traced": traced}
    headers = {"x-firstdraft-feature": how.pop("feature", "chat"), "cache-control": "no-store"}
    seen, asked = Seen(), time.monotonic()
    async with session.post(f"{url}/v1/chat/completions", json=body | how, headers=headers) as response:
        response.raise_for_status()
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            drafted = chunk.get("draft", {}).get("text")
            written = any(choice["delta"].get("content") for choice in chunk.get("choices", ()))
            if (drafted or written) and seen.visible_s is None:
                seen.visible_s, seen.drafted_first = time.monotonic() - asked, bool(drafted)
            if written and seen.final_s is None:
                seen.final_s = time.monotonic() - asked
        identity = response.headers["x-request-id"]
    async with session.get(f"{url}/v1/firstdraft/usage", params={"request": identity}) as usage:
        last = (await usage.json())["last"]
    seen.cost_usd, seen.cascade = last["cost_usd"], last.get("cascade", "")
    return seen


async def replay(url: str, requests: list[Traced], **how: Any) -> list[Seen]:
    """Send all of them at their times; each kind in `how` is a request of its own."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.monotonic() + 0.5
        return await asyncio.gather(*(send(session, url, one, began, **how) for one in requests))


def quantile(seconds: list[float], share: float) -> float:
    """By rank."""
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]


def report(without: list[Seen], drafted: list[Seen], cascaded: list[Seen]) -> str:
    """The table, in the README's form."""
    rows = [
        ("first visible text, without drafts", [one.visible_s for one in without]),
        ("first visible text, with drafts", [one.visible_s for one in drafted]),
        ("first token of the final, with drafts", [one.final_s for one in drafted]),
        ("first content, with a cascade", [one.final_s for one in cascaded]),
    ]
    lines = ["| seconds | p50 | p95 |", "| --- | --- | --- |"]
    lines += [f"| {label} | {quantile(told, 0.5):.2f} | {quantile(told, 0.95):.2f} |" for label, told in rows]
    alone, cost = sum(one.cost_usd for one in without), sum(one.cost_usd for one in cascaded)
    stands = sum(one.cascade == "stands" for one in cascaded)
    first = sum(one.drafted_first for one in drafted)
    saved = f"the cascade's edge answers {stands}: ${cost:.4f} instead of ${alone:.4f}, {1 - cost / alone:.0%} saved"
    lines += ["", f"{len(without)} requests, {first} with a draft before the final's first token; {saved}"]
    return "\n".join(lines)


def plot(without: list[Seen], drafted: list[Seen], cascaded: list[Seen]) -> str:
    """The share of requests (upwards) that had something to show after so many seconds, as SVG."""
    wide, high, left, base = 640, 360, 60, 310
    most = max(one.visible_s for one in [*without, *drafted])
    curves = (
        ("without drafts", "#888", [one.visible_s for one in without]),
        ("with drafts", "#0a7", [one.visible_s for one in drafted]),
        ("with a cascade (content)", "#c60", [one.final_s for one in cascaded if one.final_s <= most]),
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="13">'
    ]
    parts.append(f'<rect width="{wide}" height="{high}" fill="#fff"/>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = base - share * (base - 30)
        parts.append(
            f'<path d="M{left} {y:.0f}H{wide - 20}" stroke="#ddd"/><text x="20" y="{y + 4:.0f}">{share:.0%}</text>'
        )
    for second in range(int(most) + 1):
        x = left + second / most * (wide - 20 - left)
        parts.append(f'<text x="{x:.0f}" y="{base + 20}" text-anchor="middle">{second} s</text>')
    for place, (label, colour, seconds) in enumerate(curves):
        steps = "".join(
            f"H{left + at / most * (wide - 20 - left):.1f}V{base - (number + 1) / len(without) * (base - 30):.1f}"
            for number, at in enumerate(sorted(seconds))
        )
        parts.append(f'<path d="M{left} {base}{steps}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{wide - 30}" y="{220 + 20 * place}" text-anchor="end" fill="{colour}">{label}</text>')
    parts.append(f'<text x="{left}" y="20">First visible text: share of requests that have it</text></svg>')
    return "\n".join(parts) + "\n"


async def measure(given: argparse.Namespace, url: str, port: int, learn: Any) -> None:
    """Serve the backend, calibrate, replay."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", TracedBackend().answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        await asyncio.to_thread(learn)
        requests = trace(every=given.every, slower=given.slower, shorter=given.shorter, count=given.count)
        without, drafted = await asyncio.gather(
            replay(url, requests, draft="off"), replay(url, requests, draft="frames")
        )
        cascaded = await replay(url, requests, feature="cascade")
    finally:
        await runner.cleanup()
    print(report(without, drafted, cascaded))
    if given.plot:
        given.plot.write_text(plot(without, drafted, cascaded))


def main() -> None:
    """Start a gateway, and measure."""
    parser = argparse.ArgumentParser(description="The conversation trace, with drafts and without.")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--every", type=int, default=10, help="one of so many requests is sent")
    parser.add_argument("--slower", type=float, default=7.0, help="times as far apart as in the trace")
    parser.add_argument("--shorter", type=float, default=8.0, help="the edge's prompts are a so manieth of the trace's")
    parser.add_argument("--threshold", default="0.6")
    parser.add_argument("--plot", type=Path, default=None, help="where to write the SVG")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        backend, port = free_port(), free_port()
        url = f"http://127.0.0.1:{port}"
        (folder / "policy").mkdir()
        text = _POLICY.format(url=f"http://127.0.0.1:{backend}/v1", threshold=given.threshold)
        (folder / "policy" / "policy.yaml").write_text(text)
        serve = ("serve", "--policies", str(folder / "policy"), "--state", str(folder / "state"), "--port", port)
        stack.enter_context(running("gateway.cli.main", *serve, "--log-format", "json", log=folder / "gateway.log"))
        firstdraft("status", "--url", url, "--wait", "120")

        def learn() -> None:
            facts = str(DATA / "plain_facts.csv")
            asked = ("--shots", str(_SHOTS), "--limit", "78", "--max-tokens", "32")
            firstdraft("bench", "cascade", facts, "--url", url, *asked)
            firstdraft("edge", "calibrate", str(folder / "gateway.log"), "--state", str(folder / "state"))

        asyncio.run(measure(given, url, int(backend), learn))


if __name__ == "__main__":
    main()
