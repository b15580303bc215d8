"""Shows pip's verbose output as a few lines of progress, and keeps all of it in the file that is named.

Reads standard input. The exit status of `pip` itself is the pipeline's (`set -o pipefail`).
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TextIO

_STEP = re.compile(r"^\s*\[(\d+)/(\d+)\] ")
"""Ninja's progress: step, steps."""
_SHOWN = re.compile(r"^\s*(Building wheel for \S+|Building editable for \S+|Installing collected packages|ERROR: .*)")
_EVERY = 10
"""Per cent between two lines where the output is no terminal."""


class Progress:
    """What is on the screen: one line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self, screen: TextIO) -> None:
        self._screen = screen
        self._terminal = screen.isatty()
        self._started = time.monotonic()
        self._packages = 0
        self._percent = -1
        self._open = False

    def take(self, line: str) -> None:
        """Look at one line of pip."""
        step = _STEP.match(line)
        if step is not None:
            self._compiled(int(step[1]), int(step[2]))
        elif line.startswith("Collecting "):
            self._packages += 1
            self._changing(f"fetching package {self._packages}: {line.split()[1][:60]}")
        elif (shown := _SHOWN.match(line)) is not None:
            self._lasting(shown[1].strip())

    def end(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._open:
            self._screen.write("\n")
            self._open = False

    def _compiled(self, step: int, steps: int) -> None:
        percent = 100 * step // max(steps, 1)
        if self._terminal:
            self._changing(f"compiling {step}/{steps} ({percent} %)")
        elif percent // _EVERY != self._percent // _EVERY:
            self._lasting(f"compiling {percent:3} %")
        self._percent = percent

    def _changing(self, text: str) -> None:
        if self._terminal:
            self._screen.write(f"\r\x1b[K  {self._elapsed()} {text}")
            self._screen.flush()
            self._open = True

    def _lasting(self, text: str) -> None:
        self.end()
        self._screen.write(f"  {self._elapsed()} {text}\n")
        self._screen.flush()

    def _elapsed(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60}:{seconds % 60:02}"


def main() -> None:
    """Copy standard input to the log, and show what matters of it."""
    progress = Progress(sys.stderr)
    with Path(sys.argv[1]).open("a", encoding="utf-8") as log:
        for line in sys.stdin:
            log.write(line)
            progress.take(line)
    progress.end()


if __name__ == "__main__":
    main()
