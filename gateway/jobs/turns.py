"""When a tenant's lines may run here: not while its rate is used up, and not beside a budget that others hold."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_LEAST_PAUSE_S = 0.05


class Turns:
    """One for all lines that run in a worker process."""

    def __init__(self) -> None:
        self._not_before: dict[str, float] = {}
        self._running: Counter[str] = Counter()
        self._ended: dict[str, asyncio.Event] = {}

    def pause(self, tenant: str, seconds: float) -> None:
        """None of the tenant's lines begins before so many seconds have passed."""
        until = asyncio.get_running_loop().time() + max(seconds, _LEAST_PAUSE_S)
        self._not_before[tenant] = max(until, self._not_before.get(tenant, 0.0))

    async def free(self, tenant: str) -> None:
        """Wait until one may begin. They come back one after the other, not all at once."""
        left_s = self._left_s(tenant)
        while left_s > 0:
            await asyncio.sleep(left_s + random.uniform(0.0, max(0.2, left_s)))  # noqa: S311 spreads lines
            left_s = self._left_s(tenant)

    def _left_s(self, tenant: str) -> float:
        return self._not_before.get(tenant, 0.0) - asyncio.get_running_loop().time()

    @contextmanager
    def running(self, tenant: str) -> Iterator[None]:
        """One runs, within the context."""
        self._running[tenant] += 1
        try:
            yield
        finally:
            self._running[tenant] -= 1
            if not self._running[tenant]:
                del self._running[tenant]
            if (ended := self._ended.pop(tenant, None)) is not None:
                ended.set()

    async def another_ended(self, tenant: str) -> bool:
        """Wait until another one is over, which may give back what it had reserved; False: there is none."""
        if not self._running[tenant]:
            del self._running[tenant]
            return False
        await self._ended.setdefault(tenant, asyncio.Event()).wait()
        return True
