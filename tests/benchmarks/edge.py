"""What the edge does on this machine: `python -m tests.benchmarks.edge [--threads N]`. Prints a table; asserts nothing.

With `--llama-server PATH` a native llama-server of the same llama.cpp serves the same model file, and stands beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.edge.client import EdgeClient, EdgeDone, EdgeRequest, EdgeToken
from gateway.edge.model_files import SHIPPED_MODEL
from gateway.edge.supervisor import EdgeSupervisor
from gateway.inference.request import Message
from tests.benchmarks.llama_server import LlamaServer

PASSAGE = "The harbour master keeps a book of every ship, its cargo, its captain and the day it came into port. "
PASSAGES = 22
"""About 500 tokens."""
TOKENS = 64


@dataclass
class Answered:
    """One request, in seconds and tokens."""

    ttft_s: float
    e2e_s: float
    tokens: int


class Server(Protocol):
    """What is measured."""

    async def ask(self, prompt: str, max_tokens: int) -> Answered:
        """One request, streamed."""


class Edge:
    """Ours."""

    def __init__(self, client: EdgeClient) -> None:
        self.client = client

    async def ask(self, prompt: str, max_tokens: int) -> Answered:
        started = time.perf_counter()
        first = 0.0
        request = EdgeRequest(messages=(Message("user", prompt),), max_tokens=max_tokens)
        async for event in self.client.generate(request):
            match event:
                case EdgeToken():
                    first = first or time.perf_counter() - started
                case EdgeDone():
                    return Answered(first, time.perf_counter() - started, event.completion_tokens)
        raise RuntimeError("no end")


def prompt(number: int) -> str:
    """About 100 tokens that no other number shares, but for the template."""
    return f"{number}. " + f"Ship number {number} sails at {number} past {number % 12}. " * 6 + "Tell its whole story."


async def at_once(server: Server, count: int, first: int) -> dict[str, float]:
    """So many different requests at the same moment."""
    started = time.perf_counter()
    answers = await asyncio.gather(*(server.ask(prompt(first + number), TOKENS) for number in range(count)))
    took = time.perf_counter() - started
    ttft = [answer.ttft_s for answer in answers]
    name = f"{count} at once"
    return {
        f"{name}: tokens/s": sum(answer.tokens for answer in answers) / took,
        f"{name}: TTFT p50, ms": 1e3 * statistics.median(ttft),
        f"{name}: TTFT max, ms": 1e3 * max(ttft),
    }


async def measure(server: Server) -> dict[str, float]:
    """All that can be asked of any server."""
    figures: dict[str, float] = {}
    await server.ask("Hello.", 8)
    long = PASSAGE * PASSAGES
    cold = await server.ask("1. " + long + "Who keeps the book?", 8)
    known = await server.ask("1. " + long + "What is in the book?", 8)
    figures["500-token prompt: TTFT, ms"] = 1e3 * cold.ttft_s
    figures["its prefix known: TTFT, ms"] = 1e3 * known.ttft_s
    for count in (1, 2, 4, 8, 16):
        figures |= await at_once(server, count, 100 * count)
    return figures


async def measure_edge(threads: int, n_ctx: int) -> dict[str, float]:
    """Ours, with what only it can tell."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for _ in range(2):  # the second start finds the converted model
            started = time.perf_counter()
            supervisor = EdgeSupervisor(
                model=SHIPPED_MODEL, socket_path=path / "edge.sock", state_dir=path, threads=threads, n_ctx=n_ctx
            )
            async with supervisor, EdgeClient(path / "edge.sock") as client:
                await client.until_warm()
                warm_s = time.perf_counter() - started
        async with supervisor, EdgeClient(path / "edge.sock") as client:
            await client.until_warm()
            figures = {"start to warm, ms": 1e3 * warm_s} | await measure(Edge(client))
            return figures | await _inside(client)


async def _inside(client: EdgeClient) -> dict[str, float]:
    before = await client.stats()
    await at_once(Edge(client), 8, 5_000)
    after = await client.stats()
    loop_s = after.loop_s - before.loop_s
    decode_s = after.prefill_s + after.decode_s - before.prefill_s - before.decode_s
    stream = client.generate(EdgeRequest(messages=(Message("user", prompt(7)),), max_tokens=500))
    await anext(stream)
    closed = time.perf_counter()
    await stream.aclose()
    while (await client.stats()).active:
        continue
    cancelled_s = time.perf_counter() - closed
    fixed = after.model_bytes + after.kv_bytes
    return {
        "loop's own cost at 8, % of a step": 100 * loop_s / decode_s,
        "a cancel takes effect, ms": 1e3 * cancelled_s,
        "memory beside weights and KV, MB": (after.rss_bytes - fixed) / 1e6,
        "memory, MB": after.rss_bytes / 1e6,
    }


async def run(arguments: argparse.Namespace) -> None:
    """Measures and prints."""
    columns = {"edge": await measure_edge(arguments.threads, arguments.n_ctx)}
    if arguments.llama_server:
        model = arguments.model
        async with LlamaServer(arguments.llama_server, model, threads=arguments.threads, n_ctx=arguments.n_ctx) as peer:
            columns["llama-server"] = await measure(peer)
    width = max(map(len, columns["edge"]))
    print(" " * width, *(f"{name:>14}" for name in columns))
    for figure in columns["edge"]:
        values = (column.get(figure) for column in columns.values())
        print(f"{figure:<{width}}", *(f"{'':>14}" if value is None else f"{value:14.1f}" for value in values))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n-ctx", type=int, default=8_192)
    parser.add_argument("--llama-server", type=Path, help="a native llama-server to compare with")
    parser.add_argument("--model", type=Path, help="the model file for it: the edge's own, from STATE/models")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
