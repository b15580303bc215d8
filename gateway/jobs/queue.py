"""The queue of batches that are to be worked on: a stream that all gateways read as one group.

A ticket names a batch, and lets whoever holds it work on one of its pieces; then it goes back to the end of the queue,
so that batches take turns. A batch has a few tickets: so many of its pieces are worked on at once. Putting one back and
taking it out is one step, so none is ever lost or there twice; one whose holder is gone is claimed by another.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.store.client import PREFIX, Store
from gateway.store.script import Script

_KEY = f"{PREFIX}batch-queue"
_GROUP = "gateways"
_BLOCK_S = 5.0
_FORGET_AFTER_MS = 86_400_000


class Ticket(NamedTuple):
    """A turn. `number` is its place in the stream; `batch` names the batch's record."""

    number: str
    batch: str


class Queue:
    """One for each worker process; `consumer` names it."""

    def __init__(self, store: Store, *, consumer: str, lease_s: float) -> None:
        self._store = store
        self._consumer = consumer
        self._lease_ms = int(lease_s * 1000)
        self._open = Script.read("gateway.jobs", "open queue", "lua/open.lua")
        self._script = Script.read("gateway.jobs", "requeue", "lua/requeue.lua")

    async def open(self) -> None:
        """Make the group, if it is not there, and forget members that are gone. Raises StoreUnavailable."""
        await self._store.script(self._open, (_KEY,), (_GROUP, _FORGET_AFTER_MS))

    async def add(self, batch: str, tickets: int) -> None:
        """Give a batch so many tickets. Raises StoreUnavailable."""
        for _ in range(tickets):
            await self._store.command("XADD", _KEY, "*", "batch", batch)

    async def take(self) -> Ticket | None:
        """The next ticket; waits a moment for one. Raises StoreUnavailable."""
        words = ("GROUP", _GROUP, self._consumer, "COUNT", 1, "BLOCK", int(_BLOCK_S * 1000))
        answer = await self._store.waiting("XREADGROUP", *words, "STREAMS", _KEY, ">", wait_s=_BLOCK_S)
        return _ticket(answer[0][1]) if answer else None

    async def claim(self) -> Ticket | None:
        """A ticket whose holder is gone, if there is one. Raises StoreUnavailable."""
        cursor = b"0-0"
        while True:
            words = (_GROUP, self._consumer, self._lease_ms, cursor, "COUNT", 1)
            answer = await self._store.command("XAUTOCLAIM", _KEY, *words)
            cursor, ticket = answer[0], _ticket(answer[1])
            if ticket is not None or cursor == b"0-0":
                return ticket

    async def renew(self, ticket: Ticket) -> bool:
        """Show that its holder lives; False: it is another's by now. Raises StoreUnavailable."""
        return await self._run(ticket, "renew")

    async def again(self, ticket: Ticket) -> None:
        """Put it back at the end. Raises StoreUnavailable."""
        await self._run(ticket, "again")

    async def drop(self, ticket: Ticket) -> None:
        """Its batch is over. Raises StoreUnavailable."""
        await self._run(ticket, "drop")

    async def _run(self, ticket: Ticket, what: str) -> bool:
        args = (_GROUP, self._consumer, ticket.number, what, ticket.batch)
        return bool(await self._store.script(self._script, (_KEY,), args) == 1)


def _ticket(entries: list[tuple[bytes, list[bytes]] | None]) -> Ticket | None:
    for entry in entries:
        if entry is not None and entry[1]:
            return Ticket(entry[0].decode(), entry[1][1].decode())
    return None
