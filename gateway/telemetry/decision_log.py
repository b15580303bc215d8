"""A sample of the facts on which requests were decided, for `firstdraft policy diff`: no prompt, no answer, no key.

    state/decisions.jsonl, and the one before it, state/decisions.1.jsonl

Lines wait in memory and are written once a second, off the event loop. All workers write one file: each line is added
whole (O_APPEND), and who rotates holds a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import structlog

_MOST_WAITING = 10_000
"""Lines; what comes while so many wait is left out of the sample."""
_EVERY_S = 1.0
MOST_BYTES = 8_000_000
"""Of one file; two are kept."""


class DecisionLog:
    """Takes lines, one JSON object each; `keep_writing` writes them until it is cancelled.

    Args:
        state: the folder for the two files.
        share: how many of the decisions are recorded, 0..1.
    """

    def __init__(self, state: Path, share: float, *, most_bytes: int = MOST_BYTES) -> None:
        self._file, self._before = files(state)
        self._share = share
        self._most_bytes = most_bytes
        self._waiting: deque[bytes] = deque(maxlen=_MOST_WAITING)

    def wants_one(self) -> bool:
        """Whether this decision is one of the sample."""
        return self._share > 0 and (self._share >= 1 or random.random() < self._share)  # noqa: S311 - a sample, no secret

    def add(self, line: bytes) -> None:
        """Have one line written soon; it has no line break."""
        self._waiting.append(line)

    async def keep_writing(self) -> None:
        """Write what waits, again and again; at the end what is left."""
        try:
            while True:
                await asyncio.sleep(_EVERY_S)
                await asyncio.to_thread(self.write)
        finally:
            self.write()

    def write(self) -> None:
        """Write what waits. A full disk costs the sample, and never a request."""
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not lines:
            return
        try:
            with _locked(self._file.with_suffix(".lock")):
                if self._file.exists() and self._file.stat().st_size > self._most_bytes:
                    self._file.replace(self._before)
                descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                with os.fdopen(descriptor, "ab", buffering=0) as opened:
                    opened.write(b"".join(line + b"\n" for line in lines))
        except OSError as error:
            structlog.get_logger().warning("decisions_not_recorded", reason=error.strerror, lines=len(lines))


def files(state: Path) -> tuple[Path, Path]:
    """The file that is written, and the one before it."""
    return state / "decisions.jsonl", state / "decisions.1.jsonl"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
