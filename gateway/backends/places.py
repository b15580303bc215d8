"""Places at a backend, given out fairly between tenants: by tokens served, not first come first served.

Each tenant has a virtual counter: the tokens that it was served, divided by its weight. A place that becomes free goes
to the waiting tenant with the smallest counter, there to the request that came first. What a request will use is
charged when it gets its place, by its prompt and the mean of what answers used so far, and put right when it is over.
A tenant that comes back after a pause begins no lower than the others stand: a pause saves nothing up. (After "Fairness
in Serving Large Language Models", Sheng et al., OSDI 2024.)

So a tenant that sends a thousand requests at once delays another's single request by the answers that run already, and
by no more. The counters are this process's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import NamedTuple, Self

from gateway.errors import BackendBusy

OUTPUT_WEIGHT = 2
"""An output token counts as this many input tokens: it takes a step of the model, where a prompt takes a few in all."""
_FIRST_GUESS = 500.0
"""Tokens of an answer, until one was seen."""
_LEARNS = 0.1
"""How much the newest answer changes the means."""


class Load(NamedTuple):
    """How full a backend is: requests that may be there at once, that are, and that wait."""

    limit: int
    in_flight: int
    waiting: int


class _Waiting(NamedTuple):
    turn: asyncio.Future[None]
    cost: float


_Key = tuple[bool, str]
"""Nobody waits for the answer; whose it is."""


class Places:
    """`number` places; at most `most_waiting` requests wait for one."""

    def __init__(self, number: int, most_waiting: int, *, backend: str) -> None:
        self.waiting = 0
        self._number = self._free = number
        self._most_waiting = most_waiting
        self._backend = backend
        self._queues: dict[_Key, deque[_Waiting]] = {}
        self._served: dict[str, float] = {}
        """By tenant, in tokens by weight: of requests that are over."""
        self._charged: dict[str, float] = {}
        """The same, of requests that have a place now."""
        self._running: dict[str, int] = {}
        self._mean_answer = _FIRST_GUESS
        self._mean_s = 1.0

    def take(self, tenant: str, *, weight: float, input_tokens: int, background: bool = False) -> Place:
        """A place for the time of the context that this returns.

        Entering it waits for the tenant's turn, in the `background` for that of all that somebody waits for, too; it
        raises BackendBusy when too many wait already.
        """
        return Place(self, tenant, weight, input_tokens, background=background)

    async def enter(self, tenant: str, cost: float, *, background: bool = False) -> None:
        """Wait for the turn of a request that is charged `cost`; for `Place`."""
        self._lift(tenant)
        if self._free > 0 and not self.waiting:
            self._give(tenant, cost)
            return
        if self.waiting >= self._most_waiting:
            seconds = self._mean_s * (self.waiting + 1) / self._number
            message = f"{self._backend} is busy: {self.waiting} requests wait for it, and no more may"
            raise BackendBusy(message, deployment=self._backend, retry_after_s=min(60.0, max(1.0, seconds)))
        mine = _Waiting(asyncio.get_running_loop().create_future(), cost)
        queue = self._queues.setdefault((background, tenant), deque())
        queue.append(mine)
        self.waiting += 1
        try:
            await mine.turn
        except asyncio.CancelledError:
            if mine.turn.cancelled():
                self._forget((background, tenant), mine)
            else:  # the place came at the same moment
                self.leave(tenant, cost, 0.0, None)
            raise

    def leave(self, tenant: str, charged: float, used: float, took_s: float | None) -> None:
        """Give the place back, and put what was charged right; for `Place`."""
        self._served[tenant] = self._served.get(tenant, 0.0) + used
        self._charged[tenant] -= charged
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant], self._charged[tenant]
        if took_s is not None:
            self._mean_s += _LEARNS * (took_s - self._mean_s)
        self._free += 1
        self._next()

    @property
    def load(self) -> Load:
        return Load(self._number, self._number - self._free, self.waiting)

    def resize(self, number: int) -> None:
        """There are so many places from now on; who has one keeps it."""
        self._free += number - self._number
        self._number = number
        self._next()

    def learn(self, output_tokens: int) -> None:
        """An answer had so many tokens; 0: there was none."""
        if not output_tokens:
            return
        self._mean_answer += _LEARNS * (output_tokens - self._mean_answer)

    @property
    def expected_output(self) -> float:
        """The tokens that an answer probably has."""
        return self._mean_answer

    def _next(self) -> None:
        """Give each free place to the tenant that was served least."""
        while self.waiting and self._free > 0:
            key = min(self._queues, key=self._rank)
            first = self._queues[key][0]
            self._forget(key, first)
            if not first.turn.cancelled():
                self._give(key[1], first.cost)
                first.turn.set_result(None)
        if not self._running:
            self._served.clear()

    def _rank(self, key: _Key) -> tuple[bool, float]:
        """Whose turn is first: what somebody waits for, of the tenant that was served least."""
        background, tenant = key
        return background, self._served.get(tenant, 0.0) + self._charged.get(tenant, 0.0)

    def _give(self, tenant: str, cost: float) -> None:
        self._free -= 1
        self._charged[tenant] = self._charged.get(tenant, 0.0) + cost
        self._running[tenant] = self._running.get(tenant, 0) + 1

    def _lift(self, tenant: str) -> None:
        """Who was away begins where the least served of the others stands."""
        waiting = {one for _, one in self._queues}
        if tenant in self._running or tenant in waiting:
            return
        present = [self._served.get(one, 0.0) for one in {*self._running, *waiting}]
        if present:
            self._served[tenant] = max(self._served.get(tenant, 0.0), min(present))

    def _forget(self, key: _Key, mine: _Waiting) -> None:
        queue = self._queues.get(key)
        if queue is None or mine not in queue:  # its turn came when it had been cancelled already
            return
        queue.remove(mine)
        if not queue:
            del self._queues[key]
        self.waiting -= 1


class Place:
    """One request's place, as an async context manager."""

    def __init__(self, places: Places, tenant: str, weight: float, input_tokens: int, *, background: bool) -> None:
        self._background = background
        self._places = places
        self._tenant = tenant
        self._weight = weight
        self._charged = (input_tokens + OUTPUT_WEIGHT * places.expected_output) / weight
        self._used: float | None = None
        self._since = 0.0

    async def __aenter__(self) -> Self:
        await self._places.enter(self._tenant, self._charged, background=self._background)
        self._since = asyncio.get_running_loop().time()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        used = self._charged if self._used is None else self._used
        self._places.leave(self._tenant, self._charged, used, asyncio.get_running_loop().time() - self._since)

    def used(self, *, input_tokens: int, output_tokens: int) -> None:
        """What the request used in the end; without a word, it stays at what it was charged."""
        self._used = (input_tokens + OUTPUT_WEIGHT * output_tokens) / self._weight
        self._places.learn(output_tokens)
