"""Answers whose client has left, read to their end all the same.

Closing the connection makes most servers stop. Where policy says that one does not, and bills all that it goes on to
generate (`read_on`), the answer is read on for a bounded time: what is booked is then what the backend counts, not an
estimate of what had come until then. Whoever was cancelled does not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.tasks import error_of

MOST_AT_ONCE = 256
"""Of one process: each keeps a connection busy. Others are given up, as if their backend stopped."""


class Leftovers:
    """The answers that are being read on. Owned by `Backends`, whose end is theirs."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    async def answered(
        self, answering: Coroutine[Any, Any, None], left: Callable[[asyncio.Task[None]], Callable[[], None] | None]
    ) -> None:
        """Await `answering`, which goes on when the one who awaits it is cancelled, unless `left` wants none of it.

        `left` is then called with its task; what it returns is called when that has ended, in whatever way. None: it
        is given up now.
        """
        task = asyncio.create_task(answering, name="answer that may be read on")
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                over = left(task) if len(self._tasks) < MOST_AT_ONCE else None
                if over is None:
                    task.cancel()
                    await asyncio.wait((task,))
                else:
                    self._keep(task, over)
            raise

    def _keep(self, task: asyncio.Task[None], over: Callable[[], None]) -> None:
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error_of(task)  # nobody waits for it: what failed is booked like what ended
            over()

        task.add_done_callback(ended)

    async def close(self) -> None:
        """Give all of them up, and wait until they have ended."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
