"""What turns a revised draft into its final: which sentences changed. Pure, bounded, exact.

A change is (start, end, text): the draft's characters from `start` up to `end` become `text`. Changes stand in order
and do not touch each other; applied to the draft, from the last to the first, they give the final, character for
character. Positions count Unicode characters (code points), as Python does.

Both texts are cut into sentences that lose nothing: each keeps the white space behind it. What begins and ends alike is
passed over; between that, the longest common sequence of sentences stands, and the rest is changes. Where that would be
too much work, all between is one change; where the changes are no shorter than the final, there are none to tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Change = tuple[int, int, str]

MOST_CHANGES = 64
MOST_CHARACTERS = 8_000
"""Of all texts of one draft's changes together."""
_MOST_SENTENCES = 60
"""Between what begins and ends alike: the work grows with its square, 4 ms at the most."""
_LONGEST_COMPARED = 20_000
_SENTENCE = re.compile(r".*?(?:[.!?。！？]+[)\"'»”’\]]*\s+|\n+|$)", re.DOTALL)


def changes(draft: str, final: str) -> tuple[Change, ...] | None:
    """What to change in `draft`, so that it is `final`; None when that is too much to be worth telling."""
    if max(len(draft), len(final)) > _LONGEST_COMPARED:
        return None
    old, new = _sentences(draft), _sentences(final)
    first = _alike(old, new)
    last = _alike(old[first:][::-1], new[first:][::-1])
    start = sum(map(len, old[:first]))
    found = _between(start, old[first : len(old) - last], new[first : len(new) - last])
    told = sum(len(text) for _, _, text in found)
    return found if len(found) <= MOST_CHANGES and told <= MOST_CHARACTERS and told < len(final) else None


def apply(draft: str, found: Sequence[Change]) -> str:
    """The final that these changes make of `draft`."""
    for start, end, text in reversed(found):
        draft = draft[:start] + text + draft[end:]
    return draft


def _sentences(text: str) -> list[str]:
    return [found for found in _SENTENCE.findall(text) if found]


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many are the same from the front."""
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return place
    return min(len(one), len(other))


def _between(start: int, old: Sequence[str], new: Sequence[str]) -> tuple[Change, ...]:
    if not old and not new:
        return ()
    if max(len(old), len(new)) > _MOST_SENTENCES:
        return ((start, start + sum(map(len, old)), "".join(new)),)
    found: list[Change] = []
    at_old = at_new = 0
    for stands_old, stands_new in [*_common(old, new), (len(old), len(new))]:
        if stands_old > at_old or stands_new > at_new:
            begin = start + sum(map(len, old[:at_old]))
            end = begin + sum(map(len, old[at_old:stands_old]))
            found.append((begin, end, "".join(new[at_new:stands_new])))
        at_old, at_new = stands_old + 1, stands_new + 1
    return tuple(found)


def _common(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """The places of the longest common sequence (by dynamic programming)."""
    longest = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for row in range(len(old) - 1, -1, -1):
        here, below = longest[row], longest[row + 1]
        for column in range(len(new) - 1, -1, -1):
            same = old[row] == new[column]
            here[column] = below[column + 1] + 1 if same else max(below[column], here[column + 1])
    pairs, row, column = [], 0, 0
    while row < len(old) and column < len(new):
        if old[row] == new[column]:
            pairs.append((row, column))
            row, column = row + 1, column + 1
        elif longest[row + 1][column] >= longest[row][column + 1]:
            row += 1
        else:
            column += 1
    return pairs
