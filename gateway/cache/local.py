"""The first level: answers in this process's memory, for a few seconds, bounded in bytes."""

from __future__ import annotations

import time
from collections import OrderedDict

import msgspec

from gateway.cache.entry import Entry
from gateway.inference.events import Event

MOST_BYTES = 16_777_216
TTL_S = 3.0
"""So long may this process give an answer that another one has replaced."""


class Found(msgspec.Struct, frozen=True):
    """An answer that was kept."""

    entry: Entry
    events: list[Event]
    """In the form that was asked for; not to be changed."""

    @property
    def age_s(self) -> float:
        return self.entry.age_s()

    @property
    def is_stale(self) -> bool:
        """It may be given only while a fresh answer is fetched."""
        return self.age_s >= self.entry.fresh_s


class Local:
    """Answers by use, the least recently used dropped beyond so many bytes."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[float, int, Found]] = OrderedDict()
        self._bytes = 0

    def get(self, name: str) -> Found | None:
        """The answer under `name`, if it may still be given from memory."""
        kept = self._answers.get(name)
        if kept is None:
            return None
        until, _, found = kept
        if time.monotonic() >= until:
            self.drop(name)
            return None
        self._answers.move_to_end(name)
        return found

    def put(self, name: str, found: Found, size: int) -> None:
        """Keep an answer of about `size` bytes for a moment."""
        lives_s = min(TTL_S, found.entry.left_s())
        self.drop(name)
        if lives_s <= 0 or size > MOST_BYTES:
            return
        self._answers[name] = (time.monotonic() + lives_s, size, found)
        self._bytes += size
        while self._bytes > MOST_BYTES:
            self.drop(next(iter(self._answers)))

    def drop(self, name: str) -> None:
        """Forget the answer under `name`, if there is one."""
        kept = self._answers.pop(name, None)
        if kept is not None:
            self._bytes -= kept[1]
