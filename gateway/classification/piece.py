"""A piece of text while it is read: its bytes, the cues in it, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Iterator

from gateway.classification.cues import REACH_BYTES, Cues, CueWords

PIECE_BYTES = 32 * 1024
"""Between two pieces the clock is asked: one takes about 0.2 ms when clean."""
_OVERLAP_BYTES = 512
"""Longer than what is looked for, so that nothing is lost where pieces meet."""
_FIRST_WIDTH_BYTES = 768
_CHECKS_EACH_LOOK = 8


class OutOfTime(Exception):
    """The text could not be read in the time limit."""


class Clock:
    """The time limit of one text, in seconds of this thread's work: other threads' load makes no text unreadable."""

    def __init__(self, limit_s: float) -> None:
        self._end = time.thread_time() + limit_s
        self._checks = 0

    def check(self) -> None:
        """Called for each candidate. Raises OutOfTime."""
        self._checks += 1
        if self._checks % _CHECKS_EACH_LOOK == 0:
            self.look()

    def look(self) -> None:
        """Called for each piece. Raises OutOfTime."""
        if time.thread_time() > self._end:
            raise OutOfTime


class Piece:
    """What the finders read."""

    def __init__(self, data: bytes, words: CueWords, clock: Clock) -> None:
        self.data = data
        self.clock = clock
        self._words = words
        self._cues: Cues | None = None
        self._first = self._last = 0
        self._width = _FIRST_WIDTH_BYTES

    def cues(self, start: int, end: int) -> Cues:
        """The cues around the span. They are looked for where numbers ask for them: most of a text has none."""
        first, last = max(0, start - REACH_BYTES), min(end + REACH_BYTES, len(self.data))
        if self._cues is None or first < self._first or last > self._last:
            # Twice as far each time: many numbers cost no more than reading the piece twice.
            self._first, self._last = first, max(last, min(first + self._width, len(self.data)))
            self._width *= 2
            self._cues = Cues(self._words, self.data, self._first, self._last)
        return self._cues


def pieces_of(data: bytes) -> Iterator[bytes]:
    """`data` in pieces that overlap, cut between words where there are any."""
    start = 0
    while len(data) - start > PIECE_BYTES:
        end = start + PIECE_BYTES
        cut = max(data.rfind(b"\n", start + PIECE_BYTES // 2, end), data.rfind(b" ", end - _OVERLAP_BYTES, end))
        end = cut + 1 if cut > 0 else end
        yield data[start:end]
        line = data.find(b"\n", end - _OVERLAP_BYTES, end - 1)
        word = data.find(b" ", end - _OVERLAP_BYTES, end - 1)
        start = 1 + (line if line >= 0 else word) if max(line, word) >= 0 else end - _OVERLAP_BYTES
    yield data[start:]
