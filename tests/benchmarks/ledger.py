"""What a hold, its settlement and a cached answer's read cost: `python -m tests.benchmarks.ledger`.

CPU of this process and of the store, in microseconds, the best of many short rounds (the machine may have other work),
beside a read by redis-py in the same run: the ratio is what counts.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.asyncio import Redis

from gateway.budgets.claim import Claim
from gateway.budgets.ledger import Ledger
from gateway.budgets.limit import Limit
from gateway.inference.deployment import Price
from gateway.inference.usage import Usage
from gateway.store.client import Store
from gateway.store.embedded import EmbeddedValkey

ROUNDS, CALLS = 30, 512
LIMITS = (
    Limit(amount=10**12, unit="tokens", per="day"),
    Limit(amount=10**15, unit="nanousd", per="month"),
)
CLAIM = Claim(
    id="req-0123456789abcdef01234567",
    tenant="acme",
    feature="chat",
    key="prod",
    limits=LIMITS,
    rate=None,
    input_tokens=500,
    output_tokens=800,
    price=Price(input_nanousd=10**9, output_nanousd=3 * 10**9, cached_input_nanousd=10**8),
)
USED = Usage(input_tokens=400, output_tokens=100)


async def measure(
    name: str, store: Store, work: Callable[[], Awaitable[object]], finish: Callable[[], Awaitable[None]]
) -> None:
    async def worker(count: int) -> None:
        for _ in range(count):
            await work()

    for at_once in (1, 8, 64):
        best, fastest, least = 1e9, 1e9, 1e9
        for _ in range(ROUNDS):
            stored = await store_cpu_s(store)
            cpu, wall = time.process_time(), time.perf_counter()
            await asyncio.gather(*(worker(CALLS // at_once) for _ in range(at_once)))
            await finish()
            best, fastest = min(best, time.process_time() - cpu), min(fastest, time.perf_counter() - wall)
            least = min(least, await store_cpu_s(store) - stored)
        here, there = best / CALLS * 1e6, least / CALLS * 1e6
        cost = f"{here:6.1f} µs here, {there:6.1f} µs there"
        print(f"{name:24} {at_once:3} at once: {cost}, {CALLS / fastest:8,.0f} a second")


async def store_cpu_s(store: Store) -> float:
    words = dict(line.split(":") for line in (await store.command("INFO", "cpu")).decode().split() if ":" in line)
    return float(words["used_cpu_user"]) + float(words["used_cpu_sys"])


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fd-") as folder:
        async with EmbeddedValkey(Path(folder)) as server, Store(server.url) as store, Ledger(store) as ledger:

            async def hold() -> None:
                async with ledger.hold(CLAIM) as held:
                    _ = held.headers
                    held.charge(USED, 123_456)

            async def flush() -> None:
                await ledger._settler.flush(5.0)

            async def nothing() -> None:
                """Nothing is under way."""

            await store.set("fd1:answer", b"x" * 2_048, ttl_s=600)
            redis = Redis(unix_socket_path=server.url.removeprefix("unix://"))
            await measure("hold + settle", store, hold, flush)
            await measure("get 2 KB", store, lambda: store.get("fd1:answer"), nothing)
            await measure("get 2 KB with redis-py", store, lambda: redis.get("fd1:answer"), nothing)
            await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main())
