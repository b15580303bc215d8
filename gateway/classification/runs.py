"""Runs of digits with signs between them, read as groups.

What can begin at which group depends on the lengths of the groups and the signs alone, not on the digits. Texts have
many numbers of few shapes (dates, prices, counters), so that is worked out once for each shape, and remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from gateway.classification.cues import Cues
from gateway.classification.kinds import Kind
from gateway.classification.piece import Piece

MOST_GROUPS = 7
OCTETS = 4
SIGNS = b" .()/-"

_GROUPS = re.compile(r"(0+)([^0]*)")
_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_SHORTEST_ROW = 4
"""Equal groups that stand for themselves whatever follows: a card's."""
_MOST_DIGITS = 19
_TIGHT = frozenset({".", "-"})
"""Signs that make one number of what is on both sides."""
_DOTS = ["."] * (OCTETS - 1)
_PLUS, _BRACKET, _NOTHING = *b"+(", -1
_POINTS, _GOES_ON, _BY_PARTS, _MARKS = (frozenset(signs) for signs in (b".,", b"-.", b"-/", b"#$"))
_WORD_BYTES = frozenset(byte for byte in range(256) if chr(byte).isalnum())
_WORD_SIGNS = frozenset(byte for byte in _WORD_BYTES if byte < 0x80) | {ord("_")}
_MOST_REMEMBERED = 1_024
_LONGEST_REMEMBERED = 48
"""Bytes: whoever wants to fill the memory needs others."""


class Rule(msgspec.Struct, frozen=True):
    """A kind, the check that a number of some form has to pass, and the words of which one has to name it (if any)."""

    kind: Kind
    check: Callable[[str], bool]
    tags: tuple[str, ...] = ()
    firm: bool = False
    """No word before it can say that it is something else: form and check are those of nothing else."""


Rules = Mapping[str, tuple[Rule, ...]]
"""By the form that they are for: lengths of groups, and the signs between them, as in `3-2-4`."""
Row = tuple[int, tuple[Rule, ...]]
"""The last group of a row whose form is known, and the rules for that."""


class Shape:
    """What is alike in all runs whose groups are as long, with the same signs between them."""

    __slots__ = ("_known", "_rows", "ends", "is_address", "lengths", "separators", "size", "starts", "upto")

    def __init__(self, shape: str, rules: Rules) -> None:
        found = _GROUPS.findall(shape)
        self._known = rules
        self.size = len(found)
        self.lengths: list[int] = [len(group) for group, _ in found]
        self.separators: list[str] = [signs for _, signs in found]
        """Behind each group."""
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.upto: list[int] = [0]
        """Digits before each group, and in all."""
        at = 0
        for group, signs in found:
            self.starts.append(at)
            self.ends.append(at + len(group))
            self.upto.append(self.upto[-1] + len(group))
            at += len(group) + len(signs)
        self.is_address = shape.count(".") == OCTETS - 1
        """It has as many dots as one of the Internet, wherever."""
        self._rows: dict[int, tuple[Row, ...]] = {}

    def rows(self, first: int) -> tuple[Row, ...]:
        """The rows of groups from `first` on that have a known form and could be a number; the longest comes first."""
        rows = self._rows.get(first)
        if rows is None:
            rows = self._rows[first] = self._find_rows(first)
        return rows

    def _find_rows(self, first: int) -> tuple[Row, ...]:
        form, rows = "", []
        for last in range(first, min(first + MOST_GROUPS, self.size)):
            if self.upto[last + 1] - self.upto[first] > _MOST_DIGITS:
                break
            form = f"{form}{self.separators[last - 1]}{self.lengths[last]}" if form else str(self.lengths[last])
            if form in self._known and not self.is_tight(last) and not self._goes_on(first, last):
                rows.append((last, self._known[form]))
        return tuple(reversed(rows))

    def _goes_on(self, first: int, last: int) -> bool:
        """Two or three equal groups are a part of a longer row of them."""
        length = self.lengths[first]
        if not 0 < last - first < _SHORTEST_ROW - 1 or self.lengths[last] != length:
            return False
        return (last + 1 < self.size and self.lengths[last + 1] == length) or (
            first > 0 and self.lengths[first - 1] == length
        )

    def is_tight(self, index: int) -> bool:
        """The sign behind the group makes one number of it and the next."""
        return index + 1 < self.size and self.separators[index] in _TIGHT

    def is_dotted(self, first: int) -> bool:
        return self.separators[first : first + OCTETS - 1] == _DOTS


class Shapes:
    """Shapes by what they look like, kept once they are worked out."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._known: dict[bytes, Shape] = {}

    def of(self, run: bytes) -> Shape:
        """The shape of `run`, which begins with a digit."""
        alike = run.translate(_ALIKE)
        found = self._known.get(alike)
        if found is None:
            found = Shape(alike.decode("ascii"), self._rules)
            if len(alike) <= _LONGEST_REMEMBERED:
                if len(self._known) >= _MOST_REMEMBERED:
                    self._known.clear()
                self._known[alike] = found
        return found


class Run:
    """Groups of digits in a piece, with what stands around them."""

    __slots__ = ("_cues", "_is_dialled", "before", "begins_inside", "end", "has_plus", "piece", "shape", "start")

    def __init__(self, piece: Piece, start: int, end: int, shape: Shape) -> None:
        self.piece = piece
        self.start = start
        self.end = end
        self.shape = shape
        self._cues: Cues | None = None
        self._is_dialled: bool | None = None
        self.before = before = piece.data[start - 1] if start else _NOTHING
        """The byte before it."""
        self.begins_inside = before in _WORD_SIGNS
        """A letter stands directly before the first group."""
        self.has_plus = before == _PLUS or (before == _BRACKET and start > 1 and piece.data[start - 2] == _PLUS)

    @property
    def cues(self) -> Cues:
        if self._cues is None:
            self._cues = self.piece.cues(self.start, self.end)
        return self._cues

    @property
    def is_dialled(self) -> bool:
        """A word for phones is near."""
        if self._is_dialled is None:
            self._is_dialled = self.cues.are_near("phone", self.start, self.end)
        return self._is_dialled

    def digits(self, first: int, last: int) -> str:
        """The digits from the one group to the other."""
        shape, start = self.shape, self.start
        found = self.piece.data[start + shape.starts[first] : start + shape.ends[last]]
        return (found if first == last else found.translate(None, SIGNS)).decode("ascii")

    def is_joined(self, index: int) -> bool:
        """The group goes on what stands before it: behind a decimal point, or a dash between digits."""
        if index:
            return self.shape.is_tight(index - 1)
        return self.before in _POINTS and self.start > 1 and chr(self.piece.data[self.start - 2]).isdigit()

    def ends_at(self, index: int) -> bool:
        """Nothing stands directly behind the group that makes it a part of something longer."""
        if index + 1 < self.shape.size:
            return not self.shape.is_tight(index)
        data, end = self.piece.data, self.end
        if end >= len(data):
            return True
        if data[end] in _WORD_SIGNS:
            return False
        return not (data[end] in _GOES_ON and end + 1 < len(data) and data[end + 1] in _WORD_BYTES)

    def is_marked(self, index: int) -> bool:
        """The first group is the rest of an identifier, or a ticket's: `ORD-4539…`, `#4539…`, `/A/4539…`."""
        if index:
            return False
        if self.before in _BY_PARTS:
            return self.start > 1 and self.piece.data[self.start - 2] in _WORD_BYTES
        return self.before in _MARKS
