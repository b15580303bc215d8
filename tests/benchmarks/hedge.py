"""Hedging when one of two backends is slow at random: time to the first token, and what it costs in extra requests.

A gateway (a process of its own) between an open-loop client and two backends, all on loopback. A backend's time to the
first token is log-normal (median 100 ms, sigma 0.4); the first one is slow at random: `--slow` of its requests take
`--by` seconds longer. Requests arrive at random (Poisson), `--rate` a second, whether or not others have been answered.

    python -m tests.benchmarks.hedge
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

MEDIAN_S, SIGMA = 0.1, 0.4
WARM_UP = 100
"""Requests before those that are measured: until then no deployment's p95 is known."""
POLICY = """
backends:
  first: {{type: openai, base_url: 'http://127.0.0.1:{port}/first/v1', region: eu}}
  second: {{type: openai, base_url: 'http://127.0.0.1:{port}/second/v1', region: eu}}
models:
  large:
    - {{backend: first, model: m, price: free}}
    - {{backend: second, model: m, price: free}}
routes:
  - {{name: chat, mode: {mode}, models: [large]}}
tenants:
  anyone: {{keyless: true}}
"""


@dataclass
class Backends:
    """Both backends, on one port."""

    slow: float
    by_s: float
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    requests: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.requests += 1
        seconds = self.rng.lognormvariate(math.log(MEDIAN_S), SIGMA)
        if request.path.startswith("/first") and self.rng.random() < self.slow:
            seconds += self.by_s
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(_chunk({"role": "assistant", "content": ""}))
        await asyncio.sleep(seconds)
        await response.write(_chunk({"content": "hello"}) + _chunk({}, "stop") + b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


async def run(mode: str, *, slow: float, by_s: float, rate: float, requests: int) -> tuple[list[float], float]:
    """The times to the first token, sorted, and the share of extra requests."""
    backends = Backends(slow, by_s)
    app = web.Application()
    app.router.add_post("/{which}/v1/chat/completions", backends.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "policy.yaml").write_text(POLICY.format(port=port, mode=mode))
        gateway_port = _free_port()
        command = ["-m", "gateway.cli.main", "serve", "--policies", folder, "--state", f"{folder}/state"]
        command += ["--port", str(gateway_port), "--no-edge", "--log-level", "error"]
        process = await asyncio.create_subprocess_exec(sys.executable, *command, env={**os.environ})
        try:
            url = f"http://127.0.0.1:{gateway_port}"
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector) as session:
                await _until_ready(session, url)
                await _load(session, url, rate=rate, requests=WARM_UP)
                before = backends.requests
                times = await _load(session, url, rate=rate, requests=requests)
            return sorted(times), (backends.requests - before) / requests - 1
        finally:
            process.terminate()
            await process.wait()
            await runner.cleanup()


async def _until_ready(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


async def _load(session: aiohttp.ClientSession, url: str, *, rate: float, requests: int) -> list[float]:
    rng, times = random.Random(11), list[float]()

    async def ask() -> None:
        body = {"model": "large", "stream": True, "messages": [{"role": "user", "content": "hello there"}]}
        began = time.monotonic()
        async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if b"hello" in line:
                    times.append(time.monotonic() - began)
                    break
            await answer.read()

    async with asyncio.TaskGroup() as group:
        due = time.monotonic()
        for _ in range(requests):
            due += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(ask())
    return times


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slow", type=float, default=0.03, help="share of the first backend's requests that are slow")
    parser.add_argument("--by", type=float, default=2.0, help="seconds by which these are late")
    parser.add_argument("--rate", type=float, default=30.0, help="requests a second")
    parser.add_argument("--requests", type=int, default=2_000)
    given = parser.parse_args()
    print("| backends | mode | p50 | p95 | p99 | extra requests |\n| --- | --- | --- | --- | --- | --- |")
    slow = f"first slow by {given.by:g} s in {given.slow:.0%}"
    for name, mode, share in (
        ("both healthy", "cloud_only", 0.0),
        (slow, "cloud_only", given.slow),
        (slow, "hedge", given.slow),
    ):
        load = {"slow": share, "by_s": given.by, "rate": given.rate, "requests": given.requests}
        times, extra = asyncio.run(run(mode, **load))
        p50, p95, p99 = (1000 * times[int(len(times) * share)] for share in (0.5, 0.95, 0.99))
        print(f"| {name} | `{mode}` | {p50:.0f} ms | {p95:.0f} ms | {p99:.0f} ms | {extra:.1%} |", flush=True)


if __name__ == "__main__":
    main()
