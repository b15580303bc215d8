"""Several edge processes, one for each model, within one bound of memory.

They are started one after the other, in the policy's order: each measures its speed undisturbed, and what one takes is
known before the next is told what is left. A model that does not fit fails by itself, with the figures as its reason;
the others serve. One that is started again may take what it had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.edge.client import EdgeClient
from gateway.edge.supervisor import EdgeSupervisor

_SETTLED = frozenset({"warm", "failed"})


class EdgeGroup:
    """Owns a supervisor for each of `models` while it is entered; entering starts the first, and waits for none.

    `memory_bytes` is the most that all of them may take, weights and KV caches; 0: what the machine has.
    """

    def __init__(
        self, models: Sequence[str], *, state_dir: Path, threads: int = 0, n_ctx: int = 8_192, memory_bytes: int = 0
    ) -> None:
        self.sockets = {model: state_dir / f"edge{_number(place)}.sock" for place, model in enumerate(models)}
        """Where each one listens, or will."""
        self._memory_bytes = memory_bytes
        self._taken: dict[str, int] = {}
        self._clients = {model: EdgeClient(path) for model, path in self.sockets.items()}
        self.supervisors = {
            model: EdgeSupervisor(
                model=model,
                socket_path=path,
                state_dir=state_dir,
                threads=threads,
                n_ctx=n_ctx,
                memory_bytes=partial(self._room, model),
            )
            for model, path in self.sockets.items()
        }
        self._stack = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        first, *others = self.sockets
        await self._start(first)
        if others:
            self._task = asyncio.create_task(self._start_others(first, others), name="edges")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        await self._stack.aclose()

    async def _start(self, model: str) -> None:
        await self._stack.enter_async_context(self.supervisors[model])
        if len(self.sockets) > 1:
            await self._stack.enter_async_context(self._clients[model])

    async def _start_others(self, before: str, others: Sequence[str]) -> None:
        for model in others:
            await self._clients[before].until(lambda status: status.state in _SETTLED)
            await self._start(model)
            before = model

    def _room(self, model: str) -> int:
        """Bytes that this one may take; 0: no bound but the machine's. At least 1 where there is one."""
        if not self._memory_bytes:
            return 0
        for other, client in self._clients.items():
            if client.status.memory_bytes:  # one that restarts has none now, and will have it again
                self._taken[other] = client.status.memory_bytes
        return max(1, self._memory_bytes - sum(taken for other, taken in self._taken.items() if other != model))


def _number(place: int) -> str:
    return f"-{place + 1}" if place else ""
