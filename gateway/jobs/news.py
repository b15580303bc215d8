"""What happened to jobs, told to all gateways: whoever waits is woken by the store, and nobody has to ask again.

One stream for all of them, short and for all replicas; each process listens on one connection, while somebody in it
wants to hear. What is told is a hint: whoever hears it looks for himself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from gateway.errors import StoreUnavailable
from gateway.store.client import PREFIX, Store

_KEY = f"{PREFIX}job-news"
_MOST = 1_000
"""Told, and still there; who falls further behind asks anyway, after a while."""
_BLOCK_S = 5.0
_PAUSE_S = 0.5

DONE, CANCELLED = "done", "cancelled"


class News:
    """Tells and hears. `run` listens; it is a task of whoever made this."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hearing: dict[str, set[Callable[[str], None]]] = {}
        self._wanted = asyncio.Event()
        self._beginning = asyncio.Lock()
        self._last = ""

    async def tell(self, what: str, name: str) -> None:
        """Tell that something happened to `name`; never fails: it is only a hint."""
        for hear in tuple(self._hearing.get(name, ())):
            hear(what)
        try:
            await self._store.command("XADD", _KEY, "MAXLEN", "~", _MOST, "*", "what", what, "name", name)
        except StoreUnavailable as error:
            structlog.get_logger().warning("job_news_not_told", reason=error.message)

    @contextmanager
    def hearing(self, name: str, hear: Callable[[str], None]) -> Iterator[None]:
        """Within the context, `hear` is called with what happens to `name`; perhaps twice."""
        self._hearing.setdefault(name, set()).add(hear)
        self._wanted.set()
        try:
            yield
        finally:
            self._hearing[name].discard(hear)
            if not self._hearing[name]:
                del self._hearing[name]

    async def begin(self) -> None:
        """From when this returns, nothing is missed. Raises StoreUnavailable."""
        async with self._beginning:  # whoever came first must not miss what happened since
            if not self._last:
                newest = await self._store.command("XREVRANGE", _KEY, "+", "-", "COUNT", 1)
                self._last = newest[0][0].decode() if newest else "0-0"

    async def run(self) -> None:
        """Listen while anybody wants to hear. Runs for ever."""
        while True:
            await self._wanted.wait()
            if not self._hearing:
                self._wanted.clear()
                self._last = ""
                continue
            try:
                await self.begin()
                block_ms = int(_BLOCK_S * 1000)
                words = ("XREAD", "COUNT", _MOST, "BLOCK", block_ms, "STREAMS", _KEY, self._last)
                self._take(await self._store.waiting(*words, wait_s=_BLOCK_S))
            except StoreUnavailable:
                await asyncio.sleep(_PAUSE_S)

    def _take(self, answer: list[tuple[bytes, list[tuple[bytes, list[bytes]]]]] | None) -> None:
        for _, entries in answer or ():
            for number, words in entries:
                self._last = number.decode()
                told = dict(zip(words[::2], words[1::2], strict=True))
                what, name = told[b"what"].decode(), told[b"name"].decode()
                for hear in tuple(self._hearing.get(name, ())):
                    hear(what)
