"""A native llama-server as a peer: started on a free port, asked through its OpenAI-compatible API."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

_START_S = 60.0
_SLOTS = 16


class LlamaServer:
    """Owns the process while it is entered."""

    def __init__(self, binary: Path, model: Path, *, threads: int, n_ctx: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._command = [str(binary), "-m", str(model), "--port", str(self._port), "--host", "127.0.0.1"]
        self._command += ["-t", str(threads), "-tb", str(threads), "-c", str(n_ctx), "-np", str(_SLOTS), "-fa", "on"]
        self._command += ["--kv-unified"]

    async def __aenter__(self) -> Self:
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(*self._command, stdout=quiet, stderr=quiet)
        connector = aiohttp.TCPConnector(force_close=True)  # it closes idle connections without a word
        self._session = aiohttp.ClientSession(f"http://127.0.0.1:{self._port}", connector=connector)
        async with asyncio.timeout(_START_S):
            while not await self._healthy():
                await asyncio.sleep(0.1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        self._process.kill()
        await self._process.wait()

    async def _healthy(self) -> bool:
        try:
            async with self._session.get("/health") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def ask(self, prompt: str, max_tokens: int):
        """One request, streamed, greedy."""
        from tests.benchmarks.edge import Answered

        body = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started = time.perf_counter()
        first, tokens = 0.0, 0
        async with self._session.post("/v1/chat/completions", json=body) as response:
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                    first = first or time.perf_counter() - started
                tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
        return Answered(first, time.perf_counter() - started, tokens)
