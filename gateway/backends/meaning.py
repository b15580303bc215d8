"""How alike two texts are in what they mean, by all-MiniLM-L6-v2 in a thread: in time, or not at all.

The model is loaded with the first question, which it therefore does not answer. It has no more than a few questions
before it: what would have to wait is not asked.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import structlog

from gateway.errors import SettingsError

_MOST_WAITING = 2


class Meaning:
    """One worker's model. Without the extra `embeddings` it knows nothing, and says so once."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._model: Any = None  # of `edge.minilm`, which is imported with the first use: numpy takes its time
        self._waiting = 0
        self._is_missing = False

    async def likeness(self, one: str, other: str, *, within_s: float) -> float | None:
        """The cosine of the two texts' beginnings (256 tokens), 0..1; None where that takes longer than `within_s`."""
        if self._is_missing or self._waiting >= _MOST_WAITING:
            return None
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="meaning")
        self._waiting += 1
        asked = asyncio.get_running_loop().run_in_executor(self._thread, self._compare, one, other)
        asked.add_done_callback(self._done)
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.shield(asked)
        except TimeoutError:
            return None
        except SettingsError as error:
            self._is_missing = True
            structlog.get_logger().warning("meaning_not_compared", reason=error.message)
            return None

    def _compare(self, one: str, other: str) -> float:
        if self._model is None:
            self._model = import_module("gateway.edge.minilm").MiniLM()
        first, second = self._model.embed([one, other])
        return min(1.0, max(0.0, float(first @ second)))

    def _done(self, asked: asyncio.Future[float]) -> None:
        self._waiting -= 1
        if not asked.cancelled():
            asked.exception()  # looked at: nobody may be waiting for it any more

    def close(self) -> None:
        """End the thread, as soon as it has done what it is at."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
