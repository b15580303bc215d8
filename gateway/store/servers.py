"""Which server has a key: always the same one, the master that Sentinels name, or the Cluster's node of its slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import structlog

from gateway.errors import StoreUnavailable
from gateway.store.address import Address, Login, Place
from gateway.store.line import Answer, Line, pack
from gateway.store.link import Link, connect, greet

_SLOTS = 16_384
_ASK_SENTINELS_S = 1.0
"""How often Sentinels are asked whether the master is still the master: they tell a replaced one only after seconds."""
_REFRESH_S = 0.5
"""How often a Cluster with a node that does not answer is asked who serves its slots now."""


class Servers(Protocol):
    """The servers that are the store."""

    def links(self) -> Iterable[Link]:
        """All that are known."""

    def link(self, key: str | bytes | None) -> Link:
        """The one that has a key; any for None. Raises StoreUnavailable: nobody serves it now."""

    async def find(self) -> None:
        """Find out, where it has to be found out. Raises StoreUnavailable."""

    async def moved(self, error: str) -> Link | None:
        """Whom to ask instead after `MOVED …` or `ASK …`; None: nobody."""

    async def close(self) -> None:
        """Close all links."""


def servers(address: Address, timeout_s: float, on_line: Callable[[Line], None]) -> Servers:
    """The servers of a URL; nothing is connected yet."""
    if address.kind == "cluster":
        return Cluster(address, timeout_s, on_line)
    return OneServer(address, timeout_s, on_line)


class OneServer:
    """A server by itself, or the master behind Sentinels."""

    def __init__(self, address: Address, timeout_s: float, on_line: Callable[[Line], None]) -> None:
        behind = address.kind == "sentinel"
        self._address = address
        self._timeout_s = timeout_s
        self._master: Place | None = None
        self._config_epoch = -1
        """Of the newest failover that was heard of: no Sentinel that has not heard of it is believed."""
        self._watching: asyncio.Task[None] | None = None
        self._link = Link(
            self._ask_sentinels if behind else self._itself,
            address.login,
            address.tls,
            timeout_s=2 * timeout_s if behind else timeout_s,
            answer_s=timeout_s,
            shown=address.shown,
            master=behind,
            on_line=on_line,
        )

    def links(self) -> Iterable[Link]:
        return (self._link,)

    def link(self, key: str | bytes | None) -> Link:  # noqa: ARG002 it has them all
        return self._link

    async def find(self) -> None:
        """There is nothing to find before connecting; behind Sentinels the master is watched from now on."""
        if self._address.kind == "sentinel" and self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="store: watch the master")

    async def moved(self, error: str) -> Link | None:  # noqa: ARG002 a Cluster's words from what is none
        return None

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        await self._link.close()

    async def _watch(self) -> None:
        """Leave a master that was replaced: until a Sentinel tells it so, it serves on, and what it says is lost."""
        while True:
            await asyncio.sleep(_ASK_SENTINELS_S)
            line, before = self._link.line, self._master
            if line is None:
                continue
            try:
                now = await self._ask_sentinels()
            except StoreUnavailable:
                continue  # the master may be there all the same
            if now != before:
                line.lose(f"{now} is the master now")

    async def _itself(self) -> Place:
        return self._address.places[0]

    async def _ask_sentinels(self) -> Place:
        """Ask all at once. The highest configuration epoch is right: the others have not heard of a failover yet."""
        word = ("SENTINEL", "MASTER", self._address.service)
        address = self._address
        answers = await asyncio.gather(
            *(ask_once(place, address, address.sentinel_login, word, self._timeout_s) for place in address.places),
            return_exceptions=True,
        )
        known = [dict(zip(found[::2], found[1::2], strict=True)) for found in answers if isinstance(found, list)]
        if not known:
            raise StoreUnavailable(f"no Sentinel names a master for {address.service!r}: {_first(answers)}")
        newest = max(known, key=lambda fields: int(fields.get(b"config-epoch", b"0")))
        config_epoch = int(newest.get(b"config-epoch", b"0"))
        if config_epoch < self._config_epoch:
            raise StoreUnavailable(
                f"the Sentinels that answer have not heard of the newest master of {address.service!r}"
            )
        self._config_epoch = config_epoch
        self._master = Place(host=newest[b"ip"].decode(), port=int(newest[b"port"]))
        return self._master


class Cluster:
    """A Cluster's masters. Keys that one script touches share a hash tag, so that one node has them all."""

    def __init__(self, address: Address, timeout_s: float, on_line: Callable[[Line], None]) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._on_line = on_line
        self._links: dict[Place, Link] = {}
        self._slots: list[Link | None] = [None] * _SLOTS
        self._finding: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    def links(self) -> Iterable[Link]:
        return tuple(self._links.values())

    def link(self, key: str | bytes | None) -> Link:
        if key is None:
            found = next((link for link in self._links.values() if link.trouble is None), None)
        else:
            from redis.crc import key_slot  # only a Cluster has slots: redis-py takes a tenth of the start to load

            found = self._slots[key_slot(key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass"))]
        if found is None:
            raise StoreUnavailable(f"the Cluster at {self._address.shown} has no node for this key")
        if found.trouble is not None:
            self._watch()
        return found

    async def find(self) -> None:
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(self._find(), name="store: find the Cluster's nodes")
        await asyncio.shield(self._finding)
        if not self._links:
            raise StoreUnavailable(f"no node of the Cluster at {self._address.shown} answers")
        self._watch()

    async def moved(self, error: str) -> Link | None:
        """`MOVED slot host:port`, `ASK slot host:port`; without a host it is the one that was asked."""
        host, _, port = error.split()[2].rpartition(":")
        if error.startswith("MOVED"):
            await self.find()
        return self._link_to(Place(host=host, port=int(port))) if host and port.isdigit() else None

    async def close(self) -> None:
        tasks = [task for task in (self._finding, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for link in self._links.values():
            await link.close()

    async def _find(self) -> None:
        """Take the map of the first that has one: nodes that are known, then those of the URL."""
        for place in dict.fromkeys((*self._links, *self._address.places)):
            answer = await ask_once(place, self._address, self._address.login, ("CLUSTER", "SLOTS"), self._timeout_s)
            if isinstance(answer, list) and answer:
                await self._take(answer, place)
                return

    async def _take(self, ranges: list[Any], asked: Place) -> None:
        slots: list[Link | None] = [None] * _SLOTS
        masters = set[Place]()
        for first, last, master, *_ in ranges:
            place = Place(host=master[0].decode() or asked.host, port=master[1])
            masters.add(place)
            slots[first : last + 1] = [self._link_to(place)] * (last + 1 - first)
        self._slots = slots
        for place in [place for place in self._links if place not in masters]:
            await self._links.pop(place).close()

    def _link_to(self, place: Place) -> Link:
        if place not in self._links:

            async def itself() -> Place:
                return place

            self._links[place] = Link(
                itself,
                self._address.login,
                self._address.tls,
                timeout_s=self._timeout_s,
                answer_s=self._timeout_s,
                shown=str(place),
                on_line=self._on_line,
            )
        return self._links[place]

    def _watch(self) -> None:
        """While a node does not answer, look whether another one serves its slots."""
        troubled = any(link.trouble is not None for link in self._links.values())
        if troubled and (self._watching is None or self._watching.done()):
            self._watching = asyncio.create_task(self._follow(), name="store: follow the Cluster")

    async def _follow(self) -> None:
        while any(link.trouble is not None for link in self._links.values()):
            await self._find()
            await asyncio.sleep(_REFRESH_S)


async def ask_once(
    place: Place, address: Address, login: Login, words: tuple[str, ...], timeout_s: float
) -> Answer | None:
    """One question on a connection of its own; None where there is no answer."""
    line: Line | None = None
    try:
        async with asyncio.timeout(timeout_s):
            line = await connect(place, address.tls, timeout_s, _nothing, str(place))
            await greet(line, login)
            return await line.ask(pack(*words))
    except (TimeoutError, StoreUnavailable, OSError) as error:
        structlog.get_logger().debug("store_not_asked", place=str(place), reason=str(error))
        return None
    finally:
        if line is not None:
            line.close()


def _nothing(_line: Line, _reason: str) -> None:
    """Who asks once sees the error itself."""


def _first(answers: Iterable[object]) -> str:
    return next((str(answer) for answer in answers if answer is not None), "none of them answers")
