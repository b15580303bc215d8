"""How late the gateway's event loop is while the edge is saturated: `python -m tests.benchmarks.edge_lag`.

The gateway runs in this process, the edge in its own, the clients in a third: 24 streams at once, more than the edge
has places, for 20 seconds. A probe in the loop of the gateway sleeps 2 ms at a time; how much later it comes back is
the lag. Before it the same while nobody asks: what this machine does to any loop.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from gateway.edge.model_files import SHIPPED_MODEL
from gateway.policy.store import PolicyStore
from gateway.server.run import bind, listening
from gateway.services import open_machine
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey
from gateway.telemetry import log

_PROBE_S = 0.002
_CLIENTS = 24
_POLICY = f"""
backends:
  edge: {{type: edge, model: {SHIPPED_MODEL}, region: local}}
models:
  small: [{{backend: edge}}]
routes:
  - {{name: all, mode: edge_only}}
tenants:
  guest: {{keyless: true}}
"""


async def probe(seconds: float) -> list[float]:
    """Milliseconds that the loop was late, each time."""
    late, until = [], time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        await asyncio.sleep(_PROBE_S)
        late.append(1e3 * (time.monotonic() - began - _PROBE_S))
    return late


def told(name: str, late: list[float]) -> str:
    """Median, 99th percentile and the most."""
    ranked = sorted(late)
    p50, p99 = ranked[len(ranked) // 2], ranked[int(0.99 * len(ranked))]
    return f"{name:<28} p50 {p50:5.2f} ms   p99 {p99:5.2f} ms   most {ranked[-1]:6.2f} ms   ({len(ranked)} probes)"


async def load(url: str, seconds: float) -> None:
    """What the clients' process does: streams, one after the other, each client its own."""

    async def client(number: int) -> int:
        tokens, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            content = f"{number} {tokens} Tell a long story about a ship and its crew. " * 4
            body = {
                "model": "small",
                "stream": True,
                "max_tokens": 64,
                "messages": [{"role": "user", "content": content}],
            }
            async with session.post("/v1/chat/completions", json=body) as response:
                async for line in response.content:
                    tokens += line.startswith(b"data: {")
        return tokens

    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
        tokens = await asyncio.gather(*(client(number) for number in range(_CLIENTS)))
    print(f"{sum(tokens) / seconds:.0f} tokens a second for {_CLIENTS} clients")


async def main(seconds: float) -> None:
    """Measure in a gateway of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "policies").mkdir()
        (folder / "policies" / "policy.yaml").write_text(_POLICY)
        settings = Settings(policies=folder / "policies", state=folder / "state", port=0, drain_s=1.0)
        with bind(settings) as listener:
            async with (
                EmbeddedValkey(settings.state) as store,
                PolicyStore(settings.policies, {}) as policy,
                open_machine(settings, store.url, policy.current.edge_models) as machine,
                listening(settings, machine, policy, listener, asyncio.Event()) as found,
            ):
                await found.services.edge.until_warm()
                idle = await probe(3)
                command = (sys.executable, "-m", "tests.benchmarks.edge_lag", "--load", found.url)
                clients = await asyncio.create_subprocess_exec(*command, "--seconds", str(seconds))
                await asyncio.sleep(2)  # until all of them have begun
                busy = await probe(seconds - 3)
                await clients.wait()
                stats = await found.services.edge.stats()
        print(told("gateway, nobody asks", idle))
        print(told("gateway, edge saturated", busy))
        print(f"mean batch {stats.rows / stats.steps:.1f} tokens")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load:
        asyncio.run(load(given.load, given.seconds))
    else:
        with Path(os.devnull).open("wb", buffering=0) as nowhere:
            log.configure(level="info", format="json", stream=nowhere)
            asyncio.run(main(given.seconds))
