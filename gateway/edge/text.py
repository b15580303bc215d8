"""Bytes of tokens to text that may be shown: whole UTF-8 characters, nothing that a stop string may still take back."""

from __future__ import annotations

import codecs


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
