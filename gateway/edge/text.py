"""Bytes of tokens to text that may be shown: whole UTF-8 characters, nothing that a stop string may still take back."""

from __future__ import annotations

import codecs
from collections import deque

from gateway.inference.events import TokenLogprob


class TextGate:
    """The text of one answer. Bytes that can never become a character show as U+FFFD."""

    def __init__(self, stops: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False
        """A stop string came; it and all after it are gone."""

    def feed(self, piece: bytes) -> str:
        """The text that `piece` made certain; empty while it is held back, and after a stop string."""
        return self._release(self._decoder.decode(piece))

    def finish(self) -> str:
        """What is left when no token follows: what was held back was no stop string, half a character is U+FFFD."""
        text = self._release(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return "" if self.stopped else text

    def _release(self, new: str) -> str:
        if self.stopped:
            return ""
        if not self._stops:
            return new
        text = self._held + new
        starts = [start for stop in self._stops if (start := text.find(stop)) >= 0]
        if starts:
            self.stopped = True
            self._held = ""
            return text[: min(starts)]
        keep = len(text) - self._possible_stop(text)
        self._held = text[keep:]
        return text[:keep]

    def _possible_stop(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest


class Telling:
    """Log-probabilities of tokens, told with the first text that comes out of each: never those of a stop string."""

    def __init__(self) -> None:
        self._held: deque[tuple[TokenLogprob | None, int]] = deque()
        """Tokens of which some bytes have no text yet, and how many; None: it is told already."""

    def take(self, said: TokenLogprob, length: int, text: str, *, ended: bool) -> tuple[TokenLogprob, ...]:
        """The next token, of so many bytes, with which `text` came out. `ended`: nothing is held back any more."""
        self._held.append((said, length))
        if ended:
            return self.rest()
        told: list[TokenLogprob | None] = []
        shown = len(text.encode())
        while self._held and shown > 0:
            found, left = self._held.popleft()
            told.append(found)
            if left > shown:
                self._held.appendleft((None, left - shown))
            shown -= left
        return tuple(found for found in told if found is not None)

    def rest(self) -> tuple[TokenLogprob, ...]:
        """All that is not told yet."""
        told = tuple(said for said, _ in self._held if said is not None)
        self._held.clear()
        return told
