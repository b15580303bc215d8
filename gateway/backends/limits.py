"""The time limits of one attempt, under a single timer.

    connect ──request written──▶ first_token ──first content──▶ idle, while a read is waited for
    total: from the start to the end, or until the request's deadline, whichever is sooner

A limit that is begun only moves a number. The timer is set again when it rings, or when a limit is due before it would
ring: so a stream costs a timer about once in `idle_s`, not one a read. While a slow client holds an event, no limit of
the backend's runs but `total`.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Literal, Self

from gateway.errors import BackendTimeout
from gateway.inference.deployment import Timeouts

Limit = Literal["queue", "connect", "first_token", "idle", "total"]

_SENTENCES: dict[Limit, str] = {
    "queue": "had no free place for this request within {seconds:g} s",
    "connect": "could not be connected to within {seconds:g} s",
    "first_token": "gave no token within {seconds:g} s",
    "idle": "sent nothing for {seconds:g} s in mid-answer",
    "total": "did not complete the answer within {seconds:g} s",
}


class AttemptLimits:
    """Cancels the block it surrounds when a limit passes, and says which: `BackendTimeout`."""

    def __init__(self, timeouts: Timeouts, *, deadline: float, deployment: str) -> None:
        self.passed: Limit | None = None
        self._loop = asyncio.get_running_loop()
        self._timeouts = timeouts
        self._deployment = deployment
        self._started = self._loop.time()
        self._total_at = min(self._started + timeouts.total_s, deadline)
        self._limit: Limit = "total"
        self._limit_s = 0.0
        self._due = math.inf
        self._rings_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        self._ring_at(self._total_at)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.passed is None or self._task is None:
            return
        # As in asyncio.timeout: a cancellation from elsewhere, at the same time, goes on as one.
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._error() from error

    def begin(self, limit: Limit, seconds: float) -> None:
        """From now on `limit` runs, instead of the one before."""
        self._limit = limit
        self._limit_s = seconds
        self._due = self._loop.time() + seconds
        if self._due < self._rings_at:
            self._ring_at(self._due)

    def pause(self) -> None:
        """Nothing is waited for that the backend owes; only `total` runs on."""
        self._due = math.inf

    def _ring_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = when
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        if now >= self._total_at:
            self.passed = "total"
        elif now >= self._due:
            self.passed = self._limit
        if self.passed is None:
            self._ring_at(min(self._due, self._total_at))
        elif self._task is not None:
            self._task.cancel()

    def _error(self) -> BackendTimeout:
        limit = self.passed or "total"
        seconds = self._total_at - self._started if limit == "total" else self._limit_s
        sentence = _SENTENCES[limit].format(seconds=round(seconds, 3))
        # An attempt that began late in its request's time had less than the backend may take.
        cut_short = limit == "total" and seconds < self._timeouts.total_s / 2
        is_ours = limit == "queue" or cut_short
        return BackendTimeout(f"{self._deployment} {sentence}", deployment=self._deployment, is_ours=is_ours)
