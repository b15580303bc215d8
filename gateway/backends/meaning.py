"""How alike two texts are in what they mean, by all-MiniLM-L6-v2 in a thread: in time, or not at all.

The model is loaded with the first question, which it therefore does not answer. It has no more than a few questions
before it: what would have to wait is not asked.
"""

from __future__ import annotations

import asyncio

import structlog

from gateway.edge.shared_minilm import SharedMiniLM
from gateway.errors import SettingsError
from gateway.tasks import error_of

_MOST_WAITING = 2


class Meaning:
    """One for each worker. Without the extra `embeddings` it knows nothing, and says so once."""

    def __init__(self, minilm: SharedMiniLM) -> None:
        self._minilm = minilm
        self._waiting = 0
        self._is_missing = False

    async def likeness(self, one: str, other: str, *, within_s: float) -> float | None:
        """The cosine of the two texts' beginnings (256 tokens), 0..1; None where that takes longer than `within_s`."""
        if self._is_missing or self._waiting >= _MOST_WAITING:
            return None
        self._waiting += 1
        asked = self._minilm.run(self._compare, one, other)
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
        first, second = self._minilm.loaded().embed([one, other])
        return min(1.0, max(0.0, float(first @ second)))

    def _done(self, asked: asyncio.Future[float]) -> None:
        self._waiting -= 1
        error_of(asked)  # looked at: nobody may be waiting for it any more
