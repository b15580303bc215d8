"""All that works for nobody who waits, in one worker process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from gateway.cache.sealing import Sealer
from gateway.conversations.kept import Conversations
from gateway.jobs.answering import Answering
from gateway.jobs.later import Later, TaskHook
from gateway.pipeline import Pipeline
from gateway.policy.compiled import CompiledPolicy
from gateway.store.client import Store
from gateway.telemetry.record import RequestRecord


class Jobs:
    """An async context manager. What it takes, see `later.Later` and `answering.Answering`."""

    def __init__(
        self,
        store: Store,
        *,
        pipeline: Pipeline,
        policy: Callable[[], CompiledPolicy],
        conversations: Conversations,
        sealer: Sealer | None,
        lease_s: float,
        finish: Callable[[RequestRecord], None],
        on_begin: TaskHook,
        on_end: TaskHook,
    ) -> None:
        answering = Answering(pipeline=pipeline, policy=policy, conversations=conversations, finish=finish)
        self.later = Later(store, answering, sealer=sealer, lease_s=lease_s, on_begin=on_begin, on_end=on_end)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.later)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def drain(self) -> None:
        """Begin nothing any more."""
        self.later.drain()
