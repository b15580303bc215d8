"""Many streams open at once through one gateway process: memory, the event loop's lag, and what is left when all go.

    python -m tests.benchmarks.streams [--streams 1000] [--seconds 10]

Half of the streams are idle after their first token, half trickle a token a second. Backend, gateway and clients are
three processes on the loopback. The lag is how late a timer of 5 ms rings in the gateway's event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from gateway.server.run import serve
from gateway.settings import Settings
from gateway.telemetry import log

PROBE_S = 0.005
POLICY = """
backends:
  b: {{type: openai, base_url: '{url}', region: eu, timeouts: {{first_token: 60s, idle: 300s, total: 600s}}}}
models:
  idle: [{{backend: b, model: idle, price: {{input: 1, output: 2}}}}]
  trickle: [{{backend: b, model: trickle, price: {{input: 1, output: 2}}}}]
routes: [{{name: all, mode: cloud_only}}]
tenants:
  t: {{keyless: true, budgets: [{{tokens: 1_000_000_000, per: day}}]}}
"""
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _token() -> bytes:
    choice = {"index": 0, "delta": {"content": " word"}, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    data = f"data: {json.dumps(chunk)}\n\n".encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


TOKEN = _token()


async def backend() -> None:
    """A token at once; then one a second, or none any more."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            body = await reader.readuntil(b"}]") + await reader.read(1000)
            writer.write(_HEAD + TOKEN)
            while b'"trickle"' in body and not reader.at_eof():
                await asyncio.sleep(1)
                writer.write(TOKEN)
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


async def gateway(policies: Path, state: Path) -> None:
    """A gateway that tells, at each SIGUSR1, how late its timers were since the last one."""
    loop, late = asyncio.get_running_loop(), list[float]()

    def tell() -> None:
        found = sorted(late) or [0.0]
        late.clear()
        timers = len(loop._scheduled)
        told = {"lag_p99_ms": found[int(len(found) * 0.99)] * 1000, "lag_max_ms": found[-1] * 1000, "timers": timers}
        print(json.dumps(told), flush=True)

    async def probe() -> None:
        while True:
            due = loop.time() + PROBE_S
            await asyncio.sleep(PROBE_S)
            late.append(loop.time() - due)

    loop.add_signal_handler(signal.SIGUSR1, tell)
    probing = asyncio.create_task(probe())
    settings = Settings(policies=policies, state=state, port=0, edge=False, drain_s=0.5)
    log.configure(level="error", format="json")
    await serve(settings, lambda listening: print(listening.url, flush=True))
    probing.cancel()


@asynccontextmanager
async def _process(*arguments: str):
    command = (sys.executable, "-m", "tests.benchmarks.streams", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


async def _open(url: str, model: str) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    body = json.dumps({"stream": True, "model": model, "messages": [{"role": "user", "content": "hi"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {url.removeprefix('http://')}\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode())
    writer.write(body)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError((answer + await reader.read(500)).decode())
    await asyncio.wait_for(reader.readuntil(b"word"), 60)
    return writer


async def _open_in_the_end(url: str, model: str) -> asyncio.StreamWriter:
    """Open a stream, and try again where the store is late: opening is not what is measured."""
    for _ in range(100):
        try:
            return await _open(url, model)
        except ConnectionError:
            await asyncio.sleep(0.2)
    raise TimeoutError("the gateway does not answer")


async def _opened(url: str, number: int) -> list[asyncio.StreamWriter]:
    writers: list[asyncio.StreamWriter] = []
    for first in range(0, number, 20):
        some = range(first, min(first + 20, number))
        writers += await asyncio.gather(*(_open_in_the_end(url, "trickle" if index % 2 else "idle") for index in some))
    return writers


async def measure(streams: int, seconds: float) -> dict[str, float]:
    """Open them, hold them, close them."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fd-streams-")))
        upstream = await stack.enter_async_context(_process("--backend"))
        url = (await upstream.stdout.readline()).decode().strip()
        (folder / "policies").mkdir()
        (folder / "policies/policy.yaml").write_text(POLICY.format(url=url))
        served = await stack.enter_async_context(_process("--gateway", str(folder)))
        url = (await served.stdout.readline()).decode().strip()

        async def told() -> dict[str, float]:
            os.kill(served.pid, signal.SIGUSR1)
            return json.loads(await served.stdout.readline())

        for writer in await _opened(url, 20):  # what is made once is not what streams cost
            writer.close()
        await asyncio.sleep(1)
        before = _rss_mb(served.pid)
        idle = await told()
        began = time.monotonic()
        writers = await _opened(url, streams)
        opened_s = time.monotonic() - began
        await told()
        await asyncio.sleep(seconds)
        held = await told()
        more_mb = _rss_mb(served.pid) - before
        for writer in writers:
            writer.close()
        await asyncio.sleep(1)
        after = await told()
        return {
            "streams": streams,
            "opened_s": opened_s,
            "more_mb": more_mb,
            "lag_p99_ms": held["lag_p99_ms"],
            "lag_max_ms": held["lag_max_ms"],
            "idle_lag_p99_ms": idle["lag_p99_ms"],
            "timers": held["timers"],
            "timers_before": idle["timers"],
            "timers_after": after["timers"],
        }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--backend", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--gateway", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16_384)), hard))
    if given.backend:
        asyncio.run(backend())
    elif given.gateway is not None:
        asyncio.run(gateway(given.gateway / "policies", given.gateway / "state"))
    else:
        for name, value in asyncio.run(measure(given.streams, given.seconds)).items():
            print(f"{name:>16} {value:,.1f}")


if __name__ == "__main__":
    main()
