"""Peers: a native llama-server, and llama-cpp-python's own server; on a free port, asked through OpenAI's API."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

_START_S = 60.0
_SLOTS = 16


@dataclass
class Answered:
    """One request, in seconds and tokens."""

    ttft_s: float
    e2e_s: float
    tokens: int


class Peer:
    """Owns the process while it is entered; `{port}` in its command is the port."""

    def __init__(self, command: Sequence[str], *, health: str, environ: dict[str, str] | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._command = [word.format(port=port) for word in command]
        self._health = health
        self._environ = {**os.environ, **(environ or {})}

    async def __aenter__(self) -> Self:
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=quiet, stderr=quiet, env=self._environ
        )
        connector = aiohttp.TCPConnector(force_close=True)  # they close idle connections without a word
        self._session = aiohttp.ClientSession(self._url, connector=connector)
        async with asyncio.timeout(_START_S):
            while not await self._healthy():
                if self._process.returncode is not None:
                    raise RuntimeError(f"{self._command[0]} ended with status {self._process.returncode}")
                await asyncio.sleep(0.1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _healthy(self) -> bool:
        try:
            async with self._session.get(self._health) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def ask(self, prompt: str, max_tokens: int) -> Answered:
        """One request, streamed, greedy. Each piece of text is a token; usage says more exactly, where it is given."""
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started = time.perf_counter()
        first, pieces, told = 0.0, 0, 0
        async with self._session.post("/v1/chat/completions", json=body) as response:
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                    first = first or time.perf_counter() - started
                    pieces += 1
                told = (chunk.get("usage") or {}).get("completion_tokens", told)
        return Answered(first, time.perf_counter() - started, told or pieces)


def llama_server(binary: Path, model: Path, *, threads: int, n_ctx: int) -> Peer:
    """llama.cpp's own, with as many slots as the edge has places, over one shared context."""
    command = [str(binary), "-m", str(model), "--port", "{port}", "--host", "127.0.0.1", "-t", str(threads)]
    command += ["-tb", str(threads), "-c", str(n_ctx), "-np", str(_SLOTS), "-fa", "on", "--kv-unified"]
    return Peer(command, health="/health")


def python_server(model: Path, *, threads: int, n_ctx: int, packages: Path) -> Peer:
    """llama-cpp-python's, whose extra needs (`llama-cpp-python[server]`) are in the folder `packages`."""
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--port", "{port}"]
    command += ["--host", "127.0.0.1", "--n_threads", str(threads), "--n_threads_batch", str(threads)]
    # Left alone it cuts a stream off when the next request comes.
    command += ["--n_ctx", str(n_ctx), "--flash_attn", "true", "--interrupt_requests", "false"]
    path = os.pathsep.join(filter(None, (str(packages), os.environ.get("PYTHONPATH", ""))))
    return Peer(command, health="/v1/models", environ={"PYTHONPATH": path})
