"""What the edge does on this machine: `python -m tests.benchmarks.edge [--threads N]`. Prints a table; asserts nothing.

With `--llama-server PATH` a native llama-server of the same llama.cpp serves the same model file and stands beside it;
given again, another build does. With `--python-server FOLDER` llama-cpp-python's own server does, whose needs (`pip
install --target FOLDER llama-cpp-python[server]`) are in that folder. All are up at once, and each question goes to one
after the other: what disturbs the machine disturbs all alike. The table has medians of `--rounds`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from gateway.edge.client import EdgeClient, EdgeDone, EdgeRequest, EdgeToken
from gateway.edge.model_files import SHIPPED_MODEL
from gateway.edge.supervisor import EdgeSupervisor
from gateway.inference.request import Message
from tests.benchmarks.llama_server import Answered, llama_server, python_server

PASSAGE = "The harbour master keeps a book of every ship, its cargo, its captain and the day it came into port. "
PASSAGES = 22
"""About 500 tokens."""
TOKENS = 64


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
        f"{name}: TTFT max / p50": max(ttft) / statistics.median(ttft),
    }


async def long_prompt(server: Server, first: int) -> dict[str, float]:
    """A prompt of 500 tokens, and then another that begins alike; `first` makes it unlike those before."""
    long = f"{first}. " + PASSAGE * PASSAGES
    cold = await server.ask(long + "Who keeps the book?", 8)
    known = await server.ask(long + "What is in the book?", 8)
    return {"500-token prompt: TTFT, ms": 1e3 * cold.ttft_s, "its prefix known: TTFT, ms": 1e3 * known.ttft_s}


STEPS: list[Callable[[Server, int], Awaitable[dict[str, float]]]] = [
    long_prompt,
    *(lambda server, first, count=count: at_once(server, count, first + 100 * count) for count in (1, 2, 4, 8, 16)),
]
"""All that can be asked of any server."""


class Starts:
    """Makes each server anew for each round."""

    def __init__(self, arguments: argparse.Namespace, state: Path) -> None:
        self._arguments = arguments
        self._state = state
        self.warm_s = 0.0
        paths = enumerate(arguments.llama_server, 1)
        self._llama_servers = {f"llama-server {place}" if place > 1 else "llama-server": path for place, path in paths}

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return ["edge", *self._llama_servers, *["llama_cpp.server"] * bool(self._arguments.python_server)]

    @asynccontextmanager
    async def edge(self) -> AsyncIterator[tuple[EdgeClient, float]]:
        """Ours, warm, and the seconds that it took."""
        started, threads, n_ctx = time.perf_counter(), self._arguments.threads, self._arguments.n_ctx
        socket = self._state / "edge.sock"
        supervisor = EdgeSupervisor(
            model=SHIPPED_MODEL, socket_path=socket, state_dir=self._state, threads=threads, n_ctx=n_ctx
        )
        async with supervisor, EdgeClient(socket) as client:
            await client.until_warm()
            yield client, time.perf_counter() - started

    @asynccontextmanager
    async def server(self, name: str) -> AsyncIterator[Server]:
        """The one of this column, ready."""
        if name == "edge":
            async with self.edge() as (client, warm_s):
                self.warm_s = warm_s
                yield Edge(client)
            return
        given = self._arguments
        (model,) = self._state.glob("models/*.gguf")
        if name in self._llama_servers:
            peer = llama_server(self._llama_servers[name], model, threads=given.threads, n_ctx=given.n_ctx)
        else:
            folder = given.python_server
            peer = python_server(model, threads=given.threads, n_ctx=given.n_ctx, packages=folder)
        async with peer:
            yield peer


async def _inside(client: EdgeClient) -> dict[str, float]:
    before = await client.stats()
    await at_once(Edge(client), 8, 500_000)
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
    """Measures and prints, of each figure the median over the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        starts = Starts(arguments, Path(folder))
        async with starts.edge():
            pass  # makes the model's format: the starts that are timed find it
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in starts.names}
        async with AsyncExitStack() as stack:
            servers = {name: await stack.enter_async_context(starts.server(name)) for name in starts.names}
            for server in servers.values():
                await server.ask("Hello.", 8)
            for number in range(arguments.rounds):
                for columns in rounds.values():
                    columns.append({})
                for step in STEPS:
                    for name, server in servers.items():
                        found = await step(server, 10_000 * number)
                        rounds[name][-1] |= found
                        print(name, {figure: round(value, 1) for figure, value in found.items()}, file=sys.stderr)
            edge = servers["edge"]
            assert isinstance(edge, Edge)
            inside = {"start to warm, ms": 1e3 * starts.warm_s} | await _inside(edge.client)
        rounds["edge"] = [columns | inside for columns in rounds["edge"]]
    figures = list(rounds["edge"][0])
    width = max(map(len, figures))
    print(" " * width, *(f"{name:>16}" for name in rounds))
    for figure in figures:
        cells = [
            f"{statistics.median(found[figure] for found in columns):16.1f}" if figure in columns[0] else f"{'':>16}"
            for columns in rounds.values()
        ]
        print(f"{figure:<{width}}", *cells)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n-ctx", type=int, default=8_192)
    parser.add_argument(
        "--llama-server", type=Path, action="append", default=[], help="a native llama-server to compare with"
    )
    parser.add_argument("--python-server", type=Path, help="folder with the needs of llama-cpp-python's server")
    parser.add_argument("--rounds", type=int, default=1)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
