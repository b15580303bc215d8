"""Thousands of clients that leave in the middle: afterwards nothing is held, and no connection is left.

python -m tests.attack.aborts --requests 10000
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from gateway.budgets.books import Books
from gateway.store.client import Store
from tests.attack.backend import CountingBackend
from tests.attack.gateways import KEYS, Gateway, write_policy
from tests.store_servers import Server, free_ports

_AT_ONCE = 64


@dataclass
class Aftermath:
    """What is left when all clients have gone."""

    aborted: int
    holds: int
    differing: int
    """Counters that are not what the usage log adds up to."""
    in_flight: float
    descriptors_before: int
    descriptors: int
    """The gateway's open files; before: after a few requests that were not aborted."""
    backend_open: int
    """Requests that the backend is still answering."""


async def abort(requests: int, *, seed: int = 0) -> Aftermath:
    """Send requests and leave each after a moment, before or in its answer; look at what is left."""
    with tempfile.TemporaryDirectory(prefix="fd-aborts-") as name:
        folder = Path(name)
        async with CountingBackend(seed) as backend, Server(folder / "store", free_ports(1)[0]) as server:
            write_policy(folder / "policies", backend.base_url, 10**9)
            gateway = Gateway(folder / "gateway", folder / "policies", server.url)
            try:
                await gateway.start()
                return await _abort(gateway, backend, server, requests, random.Random(seed))
            finally:
                await gateway.end()


async def _abort(
    gateway: Gateway, backend: CountingBackend, server: Server, requests: int, rng: random.Random
) -> Aftermath:
    body = {"model": "large", "messages": [{"role": "user", "content": "t please"}], "max_tokens": 400}
    headers = {"authorization": f"Bearer {KEYS['closed']}"}
    aborted, numbers = 0, iter(range(requests))

    async def ask(session: aiohttp.ClientSession, leave_after_s: float | None) -> None:
        async with asyncio.timeout(leave_after_s):
            url = f"{gateway.url}/v1/chat/completions"
            async with session.post(url, json=body | {"stream": rng.random() < 0.7}, headers=headers) as response:
                await response.read()

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal aborted
        for _ in numbers:
            with contextlib.suppress(aiohttp.ClientError):
                try:
                    await ask(session, rng.choice([0.001, 0.003, 0.01, 0.03, 0.1]))
                except TimeoutError:
                    aborted += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(ask(session, None) for _ in range(_AT_ONCE)))
    before = await _settled_descriptors(gateway.pid, 0)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session) for _ in range(_AT_ONCE)))
    descriptors = await _settled_descriptors(gateway.pid, before)
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    in_flight = sum(float(line.split()[-1]) for line in lines if line.startswith("firstdraft_requests_in_flight"))
    async with Store(server.url, timeout_s=2.0) as store:
        books = Books(store)
        counters = await books.counters("closed")
        return Aftermath(
            aborted=aborted,
            holds=await books.held("closed"),
            differing=sum(counter.spent != counter.rebuilt for counter in counters),
            in_flight=in_flight,
            descriptors_before=before,
            descriptors=descriptors,
            backend_open=backend.open,
        )


async def _settled_descriptors(pid: int, goal: int) -> int:
    """The process's open files, when they are as many as before or do not get fewer any more."""
    fewest, since = sys.maxsize, 0
    while fewest > goal and since < 20:
        await asyncio.sleep(0.1)
        now = len(await asyncio.to_thread(os.listdir, f"/proc/{pid}/fd"))
        fewest, since = (now, 0) if now < fewest else (fewest, since + 1)
    return fewest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives the program
    left = asyncio.run(abort(arguments.requests, seed=arguments.seed))
    print(left)
    return int(bool(left.holds or left.differing or left.in_flight or left.descriptors > left.descriptors_before))


if __name__ == "__main__":
    sys.exit(main())
