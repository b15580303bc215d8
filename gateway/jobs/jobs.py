"""All that works for nobody who waits, in one worker process."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from gateway.cache.sealing import Sealer
from gateway.conversations.kept import Conversations
from gateway.jobs.answering import Answering
from gateway.jobs.batches import Batches
from gateway.jobs.files import Files
from gateway.jobs.later import Later, TaskHook
from gateway.jobs.line_answers import LineAnswers
from gateway.jobs.queue import Queue
from gateway.jobs.worker import BatchWorker
from gateway.pipeline import Pipeline
from gateway.policy.compiled import CompiledPolicy
from gateway.store.client import Store
from gateway.telemetry.record import RequestRecord


class Jobs:
    """An async context manager. What it takes, see those that it makes."""

    def __init__(
        self,
        store: Store,
        *,
        pipeline: Pipeline,
        policy: Callable[[], CompiledPolicy],
        conversations: Conversations,
        sealer: Sealer | None,
        lease_s: float,
        lines_at_once: int,
        files_bytes: int,
        finish: Callable[[RequestRecord], None],
        on_begin: TaskHook,
        on_end: TaskHook,
    ) -> None:
        owner = secrets.token_hex(8)
        answering = Answering(pipeline=pipeline, policy=policy, conversations=conversations, finish=finish)
        queue = Queue(store, consumer=owner, lease_s=lease_s)
        self.later = Later(store, answering, sealer=sealer, lease_s=lease_s, on_begin=on_begin, on_end=on_end)
        self.files = Files(store, sealer, most_bytes=files_bytes)
        self.batches = Batches(store, self.files, queue, owner=owner, lease_s=lease_s)
        self._worker = BatchWorker(
            queue=queue,
            batches=self.batches,
            files=self.files,
            answers=LineAnswers(self.batches, answering, at_once=lines_at_once) if lines_at_once else None,
            news=self.later.news,
            lease_s=lease_s,
            on_begin=on_begin,
            on_end=on_end,
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.later)
        await self._stack.enter_async_context(self._worker)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def running(self) -> int:
        """Answers that are being made to be fetched later, and pieces of batches that are in hand."""
        return self.later.running + self._worker.running

    def drain(self) -> None:
        """Begin nothing any more."""
        self.later.drain()
        self._worker.drain()
