"""The three kinds of store, and what may happen to each."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from gateway.budgets.terms import tenant_keys
from tests.store_servers import Cluster, SentinelPair, Server, free_ports

KINDS = ("single", "sentinel", "cluster")
Attack = Callable[[], Awaitable[str]]


class AttackedStore:
    """A store of one kind. `attacks` are awaited one at a time; each says what it did."""

    def __init__(self, kind: str, folder: Path, rng: random.Random) -> None:
        self.empties = 0
        """How often it lost everything."""
        self._rng = rng
        self._kind = kind
        if kind == "single":
            self._stack = Server(folder, free_ports(1)[0], durable=True)
        else:
            # What operators who want the bound in a split brain too have to set: see `gateway/store/address.py`.
            safe = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2")
            self._stack = SentinelPair(folder, *safe, replicas=2) if kind == "sentinel" else Cluster(folder)

    @property
    def url(self) -> str:
        return self._stack.url

    @property
    def attacks(self) -> list[Attack]:
        if self._kind == "single":
            return [self._freeze, self._restart, self._restart, self._empty]
        return [self._freeze, self._fail_over, self._fail_over]

    @property
    def servers(self) -> list[Server]:
        return [self._stack] if isinstance(self._stack, Server) else self._stack.servers

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        for server in self.servers:
            server.go_on()
        await self._stack.__aexit__(*error)

    async def heal(self) -> None:
        """Everything runs again."""
        for server in self.servers:
            server.go_on()
            if not server.running:
                await server.start()

    async def _victim(self) -> Server:
        if isinstance(self._stack, SentinelPair):
            return await self._stack.master()
        if isinstance(self._stack, Cluster):
            return await self._stack.master_of(tenant_keys(self._rng.choice(["closed", "open"]))[0])
        return self._stack

    async def _freeze(self) -> str:
        victim, seconds = await self._victim(), self._rng.uniform(0.1, 2.5)
        victim.freeze()
        await asyncio.sleep(seconds)
        victim.go_on()
        return f"store frozen for {seconds:.1f} s"

    async def _restart(self) -> str:
        await self._stack.kill()
        await asyncio.sleep(self._rng.uniform(0, 0.5))
        await self._stack.start()
        return "store killed"

    async def _empty(self) -> str:
        self.empties += 1
        if self._rng.random() < 0.5:
            await self._stack.ask("FLUSHALL")
            return "store flushed"
        await self._stack.restart(empty=True)
        return "store restarted empty"

    async def _fail_over(self) -> str:
        """Kill a master; it comes back when another has taken its place (or, too early, as an empty one)."""
        victim = await self._victim()
        await victim.kill()
        pause = self._rng.choice([0.05, 3.0, 4.0])
        if pause < 1:
            self.empties += 1
        await asyncio.sleep(pause)
        await victim.start()
        return f"master killed for {pause:.1f} s"
