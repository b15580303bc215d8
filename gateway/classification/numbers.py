"""Numbers, and what they may be: accounts, cards, phone numbers, numbers of persons, IP addresses.

A run of digits with single spaces, dots, dashes, slashes and brackets between them is read as groups. Any row of groups
whose form is known (`4 4 4 4`, `3-2-4`) is put to the rules for that form. Account numbers (IBAN) are looked for on the
same way, so that their digits are taken for nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec
import re2

from gateway.classification import phones
from gateway.classification.addresses import is_ipv4
from gateway.classification.cards import is_card
from gateway.classification.cues import Cues
from gateway.classification.ibans import IBAN, is_iban
from gateway.classification.kinds import Kind
from gateway.classification.national_ids import NUMBER_IDS
from gateway.classification.phones import NumberingPlans
from gateway.classification.piece import Piece

HINT = r"\d(?:[ .()/-]{0,3}\d){6}|\d\.\d{1,3}\.\d{1,3}\.\d|(?i:\b[A-Z]{2}\d\d[ -]?[0-9A-Z]{4}[ -]?[0-9A-Z]{4})"
RUN = r"\d(?:[ .()/-]{0,3}\d){6}(?:[ .()/-]{0,3}\d)*|\d{1,3}(?:\.\d{1,3}){3}"

KINDS = frozenset({Kind.CARD, Kind.IBAN, Kind.NATIONAL_ID, Kind.PHONE, Kind.IP})

_GROUPS = re.compile(r"(\d+)(\D*)")
_MOST_GROUPS = 7
_SHORTEST_ROW = 4
"""Equal groups that stand for themselves whatever follows: a card's."""
_FEWEST_DIGITS = 9
"""Of all forms but those of phone numbers."""
_SIGNS = b" .()/-"
_PLUS = frozenset({b"+", b"("})
_MOST_DIGITS = 19
_OCTETS = 4
_DOTS = ["."] * (_OCTETS - 1)
_DIGITS = frozenset(b"0123456789")
_TIGHT = frozenset({".", "-"})
"""Signs that make one number of what is on both sides."""
_CARD_FORMS = (
    "16", "15", "18", "19", "4 4 4 4", "4-4-4-4", "4.4.4.4", "4 6 5", "4-6-5", "4 4 4 4 3",
    "4-4-4-4-3", "4 6 4", "4-6-4",
)  # fmt: skip
_US_FORMS = ("3-3-4", "3.3.4", "3) 3-4", "3)3-4", "3) 3 4", "1-3-3-4", "1.3.3.4", "1 3 3 4", "1 3-3-4")
_NATIONAL_FORMS: tuple[tuple[str, str, str], ...] = (
    ("FR", "0", "2 2 2 2 2"),
    ("FR", "0", "2.2.2.2.2"),
    ("GB", "0", "5 6"),
    ("GB", "0", "5 3 3"),
    ("GB", "02", "3 4 4"),
    ("GB", "01", "4 3 4"),
    ("GB", "02", "3) 4 4"),
    ("NL", "06", "2-8"),
    ("NL", "06", "2 8"),
    ("BR", "", "2) 5-4"),
    ("BR", "", "2) 4-4"),
)
"""Region, first digits and form of numbers that nothing else looks like."""


class Rule(msgspec.Struct, frozen=True):
    """A kind, the check that a number of some form has to pass, and the words of which one has to name it (if any)."""

    kind: Kind
    check: Callable[[str], bool]
    tags: tuple[str, ...] = ()
    firm: bool = False
    """No word before it can say that it is something else: form and check are those of nothing else."""


def rules_by_form(plans: NumberingPlans) -> dict[str, tuple[Rule, ...]]:
    """Every rule, by the form that it is for; those that need no word come first."""
    rules: dict[str, list[Rule]] = {form: [Rule(Kind.CARD, is_card, firm=len(form) > 2)] for form in _CARD_FORMS}
    rules["14"] = [Rule(Kind.CARD, is_card, ("card",))]
    for form in _US_FORMS:
        rules.setdefault(form, []).append(Rule(Kind.PHONE, lambda digits: plans.is_national(digits, "US")))
    for region, begins, form in _NATIONAL_FORMS:
        rules.setdefault(form, []).append(Rule(Kind.PHONE, _national_check(plans, region, begins)))
    for known in NUMBER_IDS:
        for form in known.alone:
            rules.setdefault(form, []).append(Rule(Kind.NATIONAL_ID, known.check))
    for known in NUMBER_IDS:
        for form in known.named:
            rules.setdefault(form, []).append(Rule(Kind.NATIONAL_ID, known.check, (known.tag, "any")))
    return {form: tuple(found) for form, found in rules.items()}


def _national_check(plans: NumberingPlans, region: str, begins: str) -> Callable[[str], bool]:
    return lambda digits: digits.startswith(begins) and plans.is_national(digits, region)


class Numbers:
    """Reads all numbers of a piece. Made once for each policy."""

    def __init__(self) -> None:
        options = re2.Options()
        options.log_errors = False
        options.never_capture = True
        self._pattern = re2.compile(f"{IBAN}|{RUN}", options)
        self._digits = re2.compile(RUN, options)
        self._plans = NumberingPlans()
        self._rules = rules_by_form(self._plans)

    def find(self, piece: Piece) -> Iterator[Kind]:
        """The kinds of the numbers in `piece`. Raises OutOfTime."""
        data = piece.data
        for found in self._pattern.finditer(data):
            piece.clock.check()
            start, end = found.span()
            if data[start] in _DIGITS:
                yield from self._in_run(piece, start, end)
            elif is_iban(data[start:end].decode()):
                yield Kind.IBAN
            else:
                # No account: what is behind its first letters may be something else.
                for inner in self._digits.finditer(data, start + 2, end):
                    yield from self._in_run(piece, *inner.span())

    def _in_run(self, piece: Piece, start: int, end: int) -> Iterator[Kind]:
        if self._is_too_short(piece, start, end):
            return
        run = Run(piece, start, end)
        index, groups = int(run.begins_inside), len(run.digits)
        while index < groups:
            piece.clock.check()
            kind, index = self._at(run, index)
            if kind is not None:
                yield kind
            elif index < groups and self._is_too_short(piece, run.starts[index], end):
                return

    @staticmethod
    def _is_too_short(piece: Piece, start: int, end: int) -> bool:
        """For everything but addresses and phone numbers that are named as such: a date, an amount, a counter."""
        data = piece.data
        if len(data[start:end].translate(None, _SIGNS)) >= _FEWEST_DIGITS:
            return False
        if data.count(b".", start, end) == _OCTETS - 1 or data[max(0, start - 1) : start] in _PLUS:
            return False
        return not piece.cues(start, end).are_near("phone", start, end)

    def _at(self, run: Run, first: int) -> tuple[Kind | None, int]:
        """What begins at group `first`, if anything, and the group to go on with."""
        if first == 0 and run.has_plus:
            last = self._international(run, first)
            return (Kind.PHONE, last + 1) if last is not None else (None, first + 1)
        if run.is_joined(first):
            return None, first + 1
        kind, last = self._by_form(run, first)
        if kind is not None:
            return kind, last + 1
        if run.is_dotted(first) and self._is_ipv4(run, first):
            return Kind.IP, first + _OCTETS
        end = self._international(run, first, skip=2) if run.digits[first][:2] == "00" else None
        if end is None and run.cues.are_near("phone", run.starts[0], run.ends[-1]):
            end = self._dialled(run, first)
        return (None, first + 1) if end is None else (Kind.PHONE, end + 1)

    def _by_form(self, run: Run, first: int) -> tuple[Kind | None, int]:
        """The kind of the longest row of groups from `first` on that a rule takes, and its last group."""
        known, digits_of, separators = self._rules, run.digits, run.separators
        form, length, rows = "", 0, []
        for last in range(first, min(first + _MOST_GROUPS, len(digits_of))):
            group = len(digits_of[last])
            length += group
            if length > _MOST_DIGITS:
                break
            form = f"{form}{separators[last - 1]}{group}" if form else str(group)
            if form in known and run.ends_at(last) and not run.goes_on(first, last):
                rows.append((last, known[form]))
        if not rows:
            return None, first
        for last, rules in reversed(rows):
            digits = "".join(run.digits[first : last + 1])
            if digits.count(digits[0]) == len(digits):
                continue
            start, end = run.starts[first], run.ends[last]
            for rule in rules:
                # The cheaper question first: words are found once a piece, checks take microseconds.
                if rule.tags and not run.cues.name(rule.tags, start, end):
                    continue
                if rule.check(digits) and (
                    rule.tags or rule.firm or not (run.is_marked(first) or run.cues.refuse(start))
                ):
                    return rule.kind, last
        return None, first

    @staticmethod
    def _is_ipv4(run: Run, first: int) -> bool:
        start, end = run.starts[first], run.ends[first + _OCTETS - 1]
        sure = is_ipv4(run.piece.data, start, end)
        if sure is None:
            return run.cues.name(("ip",), start, end) and not run.cues.refuse(start)
        return sure and not run.cues.refuse(start)

    def _international(self, run: Run, first: int, skip: int = 0) -> int | None:
        """The last group of the phone number that begins at `first` with a country's code."""
        for last in range(min(first + _MOST_GROUPS, len(run.digits)) - 1, first - 1, -1):
            digits = "".join(run.digits[first : last + 1])[skip:]
            fits = phones.SHORTEST < len(digits) <= phones.LONGEST
            if fits and run.ends_at(last) and self._plans.is_international(digits):
                return last
        return None

    def _dialled(self, run: Run, first: int) -> int | None:
        """The last group of a number as it is dialled in one of the likely countries, behind a word for phones."""
        for last in range(min(first + _MOST_GROUPS, len(run.digits)) - 1, first - 1, -1):
            digits = "".join(run.digits[first : last + 1])
            if not phones.SHORTEST <= len(digits) <= phones.LONGEST or not run.ends_at(last):
                continue
            start, end = run.starts[first], run.ends[last]
            if not run.cues.name(("phone",), start, end) or run.cues.refuse(start):
                return None
            if self._plans.is_dialled(digits):
                return last
        return None


class Run:
    """Groups of digits with what stands between them and around them."""

    __slots__ = (
        "_after",
        "_before",
        "_cues",
        "begins_inside",
        "digits",
        "ends",
        "has_plus",
        "piece",
        "separators",
        "starts",
    )

    def __init__(self, piece: Piece, start: int, end: int) -> None:
        data = piece.data
        self.piece = piece
        self._cues: Cues | None = None
        self.digits: list[str] = []
        self.separators: list[str] = []
        """Behind each group."""
        self.starts: list[int] = []
        self.ends: list[int] = []
        self._before = before = data[max(0, start - 2) : start].decode("latin-1")
        self._after = data[end : end + 2].decode("latin-1")
        last = before[-1:]
        self.begins_inside = last.isascii() and (last.isalnum() or last == "_")
        """A letter stands directly before the first group."""
        self.has_plus = last == "+" or before == "+("
        at = start
        for digits, separator in _GROUPS.findall(data[start:end].decode("ascii")):
            self.digits.append(digits)
            self.separators.append(separator)
            self.starts.append(at)
            at += len(digits)
            self.ends.append(at)
            at += len(separator)

    @property
    def cues(self) -> Cues:
        if self._cues is None:
            self._cues = self.piece.cues(self.starts[0], self.ends[-1])
        return self._cues

    def is_dotted(self, first: int) -> bool:
        return self.separators[first : first + _OCTETS - 1] == _DOTS

    def is_joined(self, index: int) -> bool:
        """The group goes on what stands before it: behind a decimal point, or a dash between digits."""
        if index:
            return self.separators[index - 1] in _TIGHT
        return self._before[-1:] in {".", ","} and self._before[:-1].isdigit()

    def ends_at(self, index: int) -> bool:
        """Nothing stands directly behind the group that makes it a part of something longer."""
        if index + 1 < len(self.digits):
            return self.separators[index] not in _TIGHT
        after = self._after
        if not after:
            return True
        first = after[0]
        return (
            not (first.isascii() and first.isalnum()) and first != "_" and not (first in "-." and after[1:].isalnum())
        )

    def goes_on(self, first: int, last: int) -> bool:
        """Two or three equal groups are a part of a longer row of them."""
        length = len(self.digits[first])
        if not 0 < last - first < _SHORTEST_ROW - 1 or len(self.digits[last]) != length:
            return False
        return (last + 1 < len(self.digits) and len(self.digits[last + 1]) == length) or (
            first > 0 and len(self.digits[first - 1]) == length
        )

    def is_marked(self, index: int) -> bool:
        """The first group is the rest of an identifier, or a ticket's: `ORD-4539…`, `#4539…`, `/A/4539…`."""
        if index:
            return False
        last = self._before[-1:]
        return last in {"#", "$"} or (last in {"-", "/"} and self._before[:-1].isalnum())
