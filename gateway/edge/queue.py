"""Who is next: the bounded, fair queue of requests that have not begun.

Fair between tenants by tokens served, not by arrival (the virtual token counter of Sheng et al., "Fairness in Serving
Large Language Models", 2024): every token that is read or produced for a tenant is counted, and the tenant with the
fewest is next. One that comes back after a pause is lifted to the least of those that wait or run, so that nobody
saves up. Interactive requests come before background ones, whatever the counts; within a tenant, the first come.

When the queue is full, the tenant with the most waiting requests gives up its newest, if the newcomer's has fewer; so a
flood from one tenant does not shut out another.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from gateway.edge.job import Job
from gateway.edge.protocol import Priority

_TENANTS_REMEMBERED = 1_024
_ORDER: tuple[Priority, ...] = ("interactive", "background")


class FairQueue:
    """Waiting jobs. All costs are O(tenants that wait)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[Priority, OrderedDict[str, deque[Job]]] = {name: OrderedDict() for name in _ORDER}
        self._served: OrderedDict[str, float] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Job]:
        for lanes in self._waiting.values():
            for lane in lanes.values():
                yield from lane

    def add(self, job: Job, running: list[str]) -> Job | None:
        """Takes the job in. Returns the one that is refused for it: another, the job itself, or None.

        `running` are the tenants that are being served now.
        """
        victim = None
        if self._size >= self._limit:
            victim = self._victim(job)
            if victim is job:
                return job
            self.remove(victim)
        self._lift(job.tenant, running)
        self._waiting[job.priority].setdefault(job.tenant, deque()).append(job)
        self._size += 1
        return victim

    def put_back(self, job: Job) -> None:
        """A job that had begun and has to begin again: first in its lane, never refused."""
        self._waiting[job.priority].setdefault(job.tenant, deque()).appendleft(job)
        self._size += 1

    def remove(self, job: Job) -> None:
        """Takes a waiting job out."""
        lane = self._waiting[job.priority][job.tenant]
        lane.remove(job)
        if not lane:
            del self._waiting[job.priority][job.tenant]
        self._size -= 1

    def peek(self) -> Job | None:
        """The next to begin."""
        for name in _ORDER:
            lanes = self._waiting[name]
            if lanes:
                return lanes[min(lanes, key=self._count)][0]
        return None

    def count(self, tenant: str, tokens: int) -> None:
        """So many tokens were read or produced for this tenant."""
        self._served[tenant] = self._count(tenant) + tokens
        self._served.move_to_end(tenant)
        while len(self._served) > _TENANTS_REMEMBERED:
            self._served.popitem(last=False)

    def served(self, tenant: str) -> float:
        """Its counter: comparable between tenants, no total."""
        return self._count(tenant)

    def _count(self, tenant: str) -> float:
        return self._served.get(tenant, 0.0)

    def _lift(self, tenant: str, running: list[str]) -> None:
        present = set(running)
        for lanes in self._waiting.values():
            present.update(lanes)
        if present and tenant not in present:
            least = min(self._count(name) for name in present)
            self._served[tenant] = max(self._count(tenant), least)
            self._served.move_to_end(tenant)

    def _victim(self, newcomer: Job) -> Job:
        for name in reversed(_ORDER):
            lanes = self._waiting[name]
            if not lanes or (name == "interactive" and newcomer.priority == "background"):
                continue
            greediest = max(lanes, key=lambda tenant: len(lanes[tenant]))
            if name != newcomer.priority or len(lanes[greediest]) > len(lanes.get(newcomer.tenant, ())) + 1:
                return lanes[greediest][-1]
        return newcomer
