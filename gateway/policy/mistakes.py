"""Mistakes in a policy folder: where they are, and the nearest right name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.errors import Mistake, PolicyError

MOST_MISTAKES = 200
"""Reported at once; a file in the wrong format would give thousands."""
_MOST_NAMES_LISTED = 12
_SHORT = 3
_LONGEST_COMPARED = 128
_MOST_NAMES_COMPARED = 500
"""Clients send words to compare as well (an unknown model): the search has to stay in the microseconds."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a policy file; lines and columns count from 1, 0 where the file as a whole is meant."""

    file: str
    line: int = 0
    column: int = 0
    text_line: int = 0
    """Where the text of a scalar begins (behind the quote); 0 where places in the text are no places in the file."""
    text_column: int = 0
    pieces: tuple[tuple[int, int, int], ...] = ()
    """Of a text that is folded over several lines: where in it each begins (from 0), and line and column of that."""

    def inside(self, line: int, column: int) -> Mark:
        """The place of the text's `line` and `column` (from 1), or of the whole scalar where that is not known."""
        if self.pieces and line == 1:
            begins, at, first = max(piece for piece in self.pieces if piece[0] < max(column, 1))
            return Mark(self.file, at, first + column - 1 - begins)
        if not self.text_line:
            return self
        first_column = self.text_column if line == 1 or self.text_line != self.line else 1
        return Mark(self.file, self.text_line + line - 1, first_column + column - 1)


class Mistakes:
    """Collects mistakes, so that a check reports all of them and not the first."""

    def __init__(self) -> None:
        self.found: list[Mistake] = []
        self.warnings: list[Mistake] = []
        """What is allowed and most likely not meant."""

    def add(self, mark: Mark, message: str) -> None:
        """Note one mistake. The same message at the same place is noted once."""
        mistake = Mistake(mark.file, mark.line, mark.column, message)
        if mistake not in self.found and len(self.found) < MOST_MISTAKES:
            self.found.append(mistake)

    def warn(self, mark: Mark, message: str) -> None:
        """Note something that is no mistake, and that its author should look at."""
        warning = Mistake(mark.file, mark.line, mark.column, message)
        if warning not in self.warnings and len(self.warnings) < MOST_MISTAKES:
            self.warnings.append(warning)

    def raise_any(self) -> None:
        """Raises PolicyError if anything was found."""
        if self.found:
            raise PolicyError(self.found)


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The known name that `word` was most likely meant for; empty when none is near."""
    folded = {name.lower(): name for name in known}
    if len(word) > _LONGEST_COMPARED or len(folded) > _MOST_NAMES_COMPARED:
        return []
    begun = [name for name in folded if len(word) >= _SHORT and name.startswith(word.lower())]
    if len(begun) == 1:
        return [folded[begun[0]]]
    cutoff = 0.6 if len(word) > _SHORT else 0.75
    return [folded[near] for near in difflib.get_close_matches(word.lower(), sorted(folded), n=1, cutoff=cutoff)]


def suggestion(word: str, known: Iterable[str]) -> str:
    """What follows "unknown name `word`": the nearest known name, or a list of those that there are."""
    names = sorted(set(known))
    near = nearest(word, names)
    if near:
        return f"; did you mean `{near[0]}`?"
    if not names:
        return "; there are none"
    listed = ", ".join(f"`{name}`" for name in names[:_MOST_NAMES_LISTED])
    more = f" and {len(names) - _MOST_NAMES_LISTED} more" if len(names) > _MOST_NAMES_LISTED else ""
    return f"; there {'is' if len(names) == 1 else 'are'} {listed}{more}"
