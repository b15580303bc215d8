"""Random load on a gateway with a real edge, clients that leave, and an edge that is killed: what came of it.

python -m tests.attack.edge_soak --minutes 30

Every answer has to end whole or with a named error of the edge's, none may hang, and memory has to stay flat: of the
gateway over the whole run, of each edge process over its life.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from gateway.edge.model_files import SHIPPED_MODEL
from tests.integration.process_fixture import Process
from tests.upstream.script import Script
from tests.upstream.scripted import ScriptedUpstream

NAMED = frozenset({"edge_crashed", "edge_unavailable", "edge_overloaded", "edge_unsuitable", "backend_timeout"})
"""The last one: its first token did not come within the backend's own limit, as while the edge hangs."""
_CLIENTS = 12
_HANGS_S = 180.0
_SAMPLE_S = 2.0
_POLICY = """
backends:
  edge: {{type: edge, model: {model}, region: local, compliance: [no-egress]}}
  cloud: {{type: openai, base_url: "{cloud}", region: us-east}}
models:
  large: [{{backend: cloud, model: l, price: free}}]
  small: [{{backend: edge, json_output: true}}]
routes:
  - {{name: edge, when: request.model == "small", mode: edge_only}}
  - {{name: chat, mode: draft_refine, draft: {{max_tokens: 48}}, fallback: [small]}}
tenants:
  guest: {{keyless: true, share_prefixes: true}}
"""
_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@dataclass
class Soaked:
    """What happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """`whole`, `left` (the client did), `hung`, or the code of the error."""
    kills: int = 0
    hangs: int = 0
    """How often the edge was stopped in its tracks, until it was found out."""
    gateway_mb: list[float] = field(default_factory=list)
    edges_mb: dict[int, list[float]] = field(default_factory=dict)
    """By process id, from when it was warm."""
    left_active: int = -1
    """Requests that the edge still has at the end."""

    @property
    def unnamed(self) -> set[str]:
        """Outcomes that must not be."""
        return set(self.outcomes) - NAMED - {"whole", "left"}

    @property
    def gateway_growth_mb(self) -> float:
        """From the second quarter of the run to the last: the first warms up."""
        quarter = max(1, len(self.gateway_mb) // 4)
        return statistics.median(self.gateway_mb[-quarter:]) - statistics.median(self.gateway_mb[quarter : 2 * quarter])

    @property
    def gateway_tenths_mb(self) -> list[float]:
        """The most in each tenth of the run."""
        tenth = max(1, len(self.gateway_mb) // 10)
        return [max(self.gateway_mb[start : start + tenth]) for start in range(0, len(self.gateway_mb), tenth)]

    @property
    def edge_most_mb(self) -> tuple[float, float]:
        """The most that any edge took, in the first half of all lives and in the second."""
        lives = [max(samples) for samples in self.edges_mb.values() if samples]
        half = max(1, len(lives) // 2)
        return max(lives[:half]), max(lives[-half:])

    def told(self) -> str:
        """All of it, in a few lines."""
        first, last = self.edge_most_mb
        return (
            f"{sum(self.outcomes.values())} requests: {dict(self.outcomes.most_common())}\n"
            f"the edge was killed {self.kills} times, and hung {self.hangs} times; {self.left_active} requests left\n"
            f"gateway {self.gateway_mb[0]:.0f} to {self.gateway_mb[-1]:.1f} MB, {self.gateway_growth_mb:+.1f} warm; "
            f"by tenths of the run: {' '.join(f'{most:.0f}' for most in self.gateway_tenths_mb)}\n"
            f"edge at most {first:.1f} MB in the first half of its lives, {last:.1f} MB in the second"
        )


async def soak(
    seconds: float, *, seed: int = 0, kill_every_s: float = 40.0, share_models: Path | None = None
) -> Soaked:
    """Run for so long. `share_models`: a folder with the model's formats, made before."""
    soaked, rng = Soaked(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="fd-soak-") as name:
        folder, state = Path(name) / "policies", Path(name) / "state"
        folder.mkdir()
        state.mkdir()
        if share_models is not None:
            (state / "models").symlink_to(share_models)
        async with ScriptedUpstream() as cloud:
            cloud.default = Script(text="An answer of the larger model, of some length. ", chunks=20, delay_s=0.05)
            (folder / "policy.yaml").write_text(_POLICY.format(model=SHIPPED_MODEL, cloud=cloud.base_url))
            async with Process(folder, state, "--edge-context", "4096") as gateway:
                await gateway.ready()
                await _run(gateway, soaked, rng, seconds, kill_every_s)
                cloud.requests.clear()
    return soaked


async def _run(gateway: Process, soaked: Soaked, rng: random.Random, seconds: float, kill_every_s: float) -> None:
    until = time.monotonic() + seconds
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(gateway.url, connector=connector) as session, asyncio.TaskGroup() as tasks:
        for number in range(_CLIENTS):
            tasks.create_task(_keep_asking(session, soaked, random.Random(rng.random() + number), until))
        sampling = tasks.create_task(_sample(gateway, soaked, until))
        await _kill(gateway, soaked, rng, until, kill_every_s)
        await sampling
    await gateway.ready()
    async with aiohttp.ClientSession(gateway.url) as session:
        for _ in range(100):
            soaked.left_active = int(await _metric(session, "firstdraft_edge_requests_active"))
            if soaked.left_active == 0:
                break
            await asyncio.sleep(0.1)


async def _keep_asking(session: aiohttp.ClientSession, soaked: Soaked, rng: random.Random, until: float) -> None:
    while time.monotonic() < until:
        leaves_after_s = rng.uniform(0, 2.0) if rng.random() < 0.25 else None
        try:
            async with asyncio.timeout(_HANGS_S):
                async with asyncio.timeout(leaves_after_s):
                    outcome = await _ask(session, _body(rng))
        except TimeoutError:
            outcome = "left" if leaves_after_s is not None else "hung"
        except aiohttp.ClientError as error:
            outcome = type(error).__name__
        soaked.outcomes[outcome] += 1
        if outcome in NAMED:
            await asyncio.sleep(0.2)


async def _ask(session: aiohttp.ClientSession, body: dict[str, object]) -> str:
    async with session.post("/v1/chat/completions", json=body) as response:
        text = await response.text()
    if response.status != 200:
        return str(json.loads(text)["error"]["code"])
    if not body["stream"]:
        return "whole" if json.loads(text)["choices"][0]["finish_reason"] else "cut"
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    if events[-1] == "[DONE]":
        finishes = [event for event in events[:-1] if '"finish_reason":"' in event]
        return "whole" if len(finishes) == 1 else f"{len(finishes)} finish reasons"
    return str(json.loads(events[-1])["error"]["code"])


def _body(rng: random.Random) -> dict[str, object]:
    """Any request: short and long, new and known, plain and with all that the edge can do."""
    words = " ".join(f"word{rng.randrange(5_000)}" for _ in range(rng.choice((3, 30, 300))))
    system = {"role": "system", "content": f"You are assistant {rng.randrange(4)}. " * rng.choice((1, 20))}
    body: dict[str, object] = {
        "model": rng.choice(("small", "small", "large")),
        "messages": [system, {"role": "user", "content": f"{words}. Go on."}],
        "stream": rng.random() < 0.6,
        "max_tokens": rng.choice((1, 16, 64, 128)),
    }
    extra = rng.random()
    if extra < 0.2:
        body |= {"temperature": 1.0, "top_p": 0.9, "seed": rng.randrange(100), "frequency_penalty": 0.5}
    elif extra < 0.3:
        body |= {"logprobs": True, "top_logprobs": 3}
    elif extra < 0.4:
        body |= {"stop": ["the", "\n"]}
    elif extra < 0.45:
        schema = {"name": "a", "schema": _SCHEMA}
        body |= {"response_format": {"type": "json_schema", "json_schema": schema}}
    elif extra < 0.75:
        body |= {"draft": "frames"}
    return body


async def _kill(gateway: Process, soaked: Soaked, rng: random.Random, until: float, every_s: float) -> None:
    """Kill the edge now and then, at any moment of its life; sometimes stop it, so that it has to be found out."""
    while (pause_s := rng.uniform(0.3, 1.7) * every_s) + time.monotonic() < until:
        await asyncio.sleep(pause_s)
        found = gateway.children("gateway.edge.process")
        hangs = rng.random() < 0.15
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if hangs else signal.SIGKILL)
        soaked.hangs += bool(found) and hangs
        soaked.kills += bool(found) and not hangs


async def _sample(gateway: Process, soaked: Soaked, until: float) -> None:
    async with aiohttp.ClientSession(gateway.url) as session:
        while time.monotonic() < until:
            await asyncio.sleep(_SAMPLE_S)
            soaked.gateway_mb.append(_resident_mb(gateway.pid))
            if await _metric(session, "firstdraft_edge_up") == 1:
                for pid in gateway.children("gateway.edge.process"):
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                        soaked.edges_mb.setdefault(pid, []).append(_resident_mb(pid))


async def _metric(session: aiohttp.ClientSession, name: str) -> float:
    async with session.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    """Reads the command line; exit status 1 when something happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    soaked = asyncio.run(soak(60 * arguments.minutes, seed=arguments.seed))
    print(soaked.told())
    if soaked.unnamed or soaked.left_active:
        print(f"must not be: {soaked.unnamed or 'requests left at the edge'}")
        sys.exit(1)


if __name__ == "__main__":
    main()
