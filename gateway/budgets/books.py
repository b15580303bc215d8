"""A tenant's books, for people: its counters, its usage log, and the counters made anew from that log.

The store is asked directly; gateways may run meanwhile, for each script is one step.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.budgets.leases import TENANTS
from gateway.budgets.scripts import Scripts
from gateway.budgets.terms import tenant_keys
from gateway.store.client import Store
from gateway.store.script import RUN

_pack = msgspec.msgpack.Encoder().encode


class Counter(msgspec.Struct, frozen=True):
    """One limit's counter. `rebuilt` is what usage log and open holds add up to: the same, unless some was lost."""

    field: str
    """`<unit>:<window>[:<feature>][:@<key>]`."""
    start: datetime
    """Of its window; of a rolling one, of its newest part."""
    spent: int
    """With what is held; in the unit that the field begins with."""
    rebuilt: int


class Entry(msgspec.Struct, frozen=True):
    """One entry of the usage log: a hold that ended."""

    at: datetime
    id: str
    """The request's, and what the gateway added."""
    how: str
    """`settled`; `expired` (its gateway died: booked at what it reserved); `open` (granted without the store);
    `recalled`, `restored` (put back after the store lost it); `extended`."""
    feature: str
    tokens: int
    nanousd: int
    estimated: bool


class Books:
    """Reads and rebuilds. Its methods raise StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._scripts = Scripts()

    async def tenants(self) -> list[str]:
        """All that ever held something, by name."""
        names = await self._store.command("SMEMBERS", TENANTS)
        return sorted(name.decode(errors="surrogatepass") for name in names)

    async def counters(self, tenant: str, *, rebuild: bool = False) -> list[Counter]:
        """All counters of windows that may still count; `rebuild`: they are written anew from the usage log."""
        words = _pack(("", int(rebuild)))
        answer: list[Any] = await self._store.script(self._scripts.rebuild, tenant_keys(tenant), (RUN, words))
        rows = [answer[at : at + 4] for at in range(0, len(answer), 4)]
        return sorted(
            (Counter(name.decode(), _time(start), spent, rebuilt) for name, start, spent, rebuilt in rows),
            key=lambda counter: counter.field,
        )

    async def held(self, tenant: str) -> int:
        """How many holds are open, of all gateways."""
        count: int = await self._store.command("HLEN", tenant_keys(tenant)[1])
        return count

    async def log(self, tenant: str, count: int) -> list[Entry]:
        """The newest entries, newest first."""
        entries = await self._store.command("XREVRANGE", tenant_keys(tenant)[3], "+", "-", "COUNT", count)
        return [_entry(stream_id, words) for stream_id, words in entries]


def _entry(stream_id: bytes, words: list[bytes]) -> Entry:
    values = dict(zip(words[::2], words[1::2], strict=True))
    return Entry(
        at=_time(int(stream_id.partition(b"-")[0]) / 1000),
        id=values[b"id"].decode(errors="replace"),
        how=values[b"how"].decode(),
        feature=values[b"feature"].decode(errors="replace"),
        tokens=int(values[b"tokens"]),
        nanousd=int(values[b"nanousd"]),
        estimated=values[b"estimated"] == b"1",
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
