"""Numbers of digits alone, and what they may be: cards, phone numbers, numbers of persons, IP addresses.

A run of digits with single spaces, dots, dashes, slashes and brackets between them is read as groups. Any row of groups
whose form is known (`4 4 4 4`, `3-2-4`) is put to the rules for that form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec

from gateway.classification import phones
from gateway.classification.addresses import is_ipv4
from gateway.classification.cards import is_card
from gateway.classification.kinds import Kind
from gateway.classification.national_ids import NUMBER_IDS
from gateway.classification.phones import NumberingPlans
from gateway.classification.piece import Piece

HINT = r"\d(?:[ .()/-]{0,2}\d){6}|\d\.\d{1,3}\.\d{1,3}\.\d"
RUN = r"\d(?:[ .()/-]{0,2}\d){6}(?:[ .()/-]{0,2}\d)*|\d{1,3}(?:\.\d{1,3}){3}"

_GROUP = re.compile(rb"\d+")
_MOST_GROUPS = 7
_OCTETS = 4
_TIGHT = frozenset({b".", b"-"})
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


def rules_by_form(plans: NumberingPlans) -> dict[str, tuple[Rule, ...]]:
    """Every rule, by the form that it is for; those that need no word come first."""
    rules: dict[str, list[Rule]] = {form: [Rule(Kind.CARD, is_card)] for form in _CARD_FORMS}
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
    """Reads runs of digits. Made once for each policy."""

    def __init__(self) -> None:
        self._plans = NumberingPlans()
        self._rules = rules_by_form(self._plans)

    def find(self, piece: Piece, start: int, end: int) -> Iterator[Kind]:
        """The kinds of the numbers in the run from `start` to `end`."""
        if piece.is_taken(start, end):
            return
        run = Run(piece, start, end)
        index, groups = int(run.begins_inside), len(run.groups)
        while index < groups:
            piece.clock.check()
            kind, behind = self._at(run, index)
            if kind is not None:
                yield kind
            index = behind

    def _at(self, run: Run, first: int) -> tuple[Kind | None, int]:
        """What begins at group `first`, if anything, and the group to go on with."""
        if run.has_plus(first):
            last = self._international(run, first)
            return (Kind.PHONE, last + 1) if last is not None else (None, first + 1)
        kind, last = self._by_form(run, first)
        if (
            kind is None
            and len(run.groups) - first > _OCTETS - 1
            and run.is_dotted(first)
            and self._is_ipv4(run, first)
        ):
            kind, last = Kind.IP, first + _OCTETS - 1
        if (
            kind is None
            and run.begins_with_zeros(first)
            and (end := self._international(run, first, skip=2)) is not None
        ):
            kind, last = Kind.PHONE, end
        if kind is None and run.names_a_phone and (end := self._dialled(run, first)) is not None:
            kind, last = Kind.PHONE, end
        return kind, last + 1

    def _by_form(self, run: Run, first: int) -> tuple[Kind | None, int]:
        """The kind of the longest row of groups from `first` on that a rule takes, and its last group."""
        if run.is_joined(first):
            return None, first
        form, forms = run.lengths[first], [run.lengths[first]]
        for part in run.parts[first + 1 : first + _MOST_GROUPS]:
            form += part
            forms.append(form)
        for last in range(first + len(forms) - 1, first - 1, -1):
            rules = self._rules.get(forms[last - first])
            if rules is None or not run.ends_at(last):
                continue
            digits = run.digits(first, last)
            if len(set(digits)) == 1:
                continue
            for rule in rules:
                # The cheaper question first: words are found once a piece, checks take microseconds.
                if rule.tags and not self._is_meant(rule, run, first, last):
                    continue
                if rule.check(digits) and (rule.tags or self._is_meant(rule, run, first, last)):
                    return rule.kind, last
        return None, first

    @staticmethod
    def _is_meant(rule: Rule, run: Run, first: int, last: int) -> bool:
        start, end = run.groups[first][0], run.groups[last][1]
        if rule.tags:
            return run.piece.cues.name(rule.tags, start, end)
        return not run.is_marked(first) and not run.piece.cues.refuse(start)

    @staticmethod
    def _is_ipv4(run: Run, first: int) -> bool:
        start, end = run.groups[first][0], run.groups[first + _OCTETS - 1][1]
        sure = is_ipv4(run.piece.data, start, end)
        if sure is None:
            return run.piece.cues.name(("ip",), start, end) and not run.piece.cues.refuse(start)
        return sure and not run.piece.cues.refuse(start)

    def _international(self, run: Run, first: int, skip: int = 0) -> int | None:
        """The last group of the phone number that begins at `first` with a country's code."""
        for last in range(min(first + _MOST_GROUPS, len(run.groups)) - 1, first - 1, -1):
            digits = run.digits(first, last)[skip:]
            fits = phones.SHORTEST < len(digits) <= phones.LONGEST
            if fits and run.ends_at(last) and self._plans.is_international(digits):
                return last
        return None

    def _dialled(self, run: Run, first: int) -> int | None:
        """The last group of a number as it is dialled in one of the likely countries, behind a word for phones."""
        if run.is_joined(first):
            return None
        for last in range(min(first + _MOST_GROUPS, len(run.groups)) - 1, first - 1, -1):
            digits = run.digits(first, last)
            if not phones.SHORTEST <= len(digits) <= phones.LONGEST or not run.ends_at(last):
                continue
            start, end = run.groups[first][0], run.groups[last][1]
            if not run.piece.cues.name(("phone",), start, end) or run.piece.cues.refuse(start):
                return None
            if self._plans.is_national(digits):
                return last
        return None


class Run:
    """Groups of digits with what stands between them."""

    def __init__(self, piece: Piece, start: int, end: int) -> None:
        data = piece.data
        self.piece = piece
        self.groups = [found.span() for found in _GROUP.finditer(data, start, end)]
        self.lengths = [str(behind - begin) for begin, behind in self.groups]
        self.separators = [b""]
        for index in range(1, len(self.groups)):
            self.separators.append(data[self.groups[index - 1][1] : self.groups[index][0]])
        self.parts = [sign.decode() + length for sign, length in zip(self.separators, self.lengths, strict=True)]
        """Each group's part of a form."""
        self._before = data[max(0, start - 3) : start]
        self._after = data[end : end + 2]
        self.begins_inside = self._before[-1:].isalnum() or self._before[-1:] == b"_"
        """A letter stands directly before the first group."""
        self._ends_inside = self._after[:1].isalnum() or self._after[:1] == b"_"
        self._goes_on = self._ends_inside or (self._after[:1] in _TIGHT and self._after[1:].isalnum())

    @property
    def names_a_phone(self) -> bool:
        """A word for phones is near enough to some group."""
        return self.piece.cues.name(("phone",), self.groups[0][0], self.groups[-1][1], whole=True)

    def digits(self, first: int, last: int) -> str:
        data = self.piece.data
        if first == last:
            start, end = self.groups[first]
            return data[start:end].decode()
        return b"".join([data[start:end] for start, end in self.groups[first : last + 1]]).decode()

    def has_plus(self, index: int) -> bool:
        """An international number begins here: `+` stands before the group, or `+(`."""
        before = self._before if index == 0 else b""
        return before[-1:] == b"+" or before[-2:] == b"+("

    def begins_with_zeros(self, index: int) -> bool:
        start = self.groups[index][0]
        return self.piece.data[start : start + 2] == b"00"

    def is_dotted(self, first: int) -> bool:
        return self.separators[first + 1 : first + _OCTETS] == [b"."] * (_OCTETS - 1)

    def is_joined(self, index: int) -> bool:
        """The group goes on what stands before it: behind a decimal point, or a dash between digits."""
        if index:
            return self.separators[index] in _TIGHT
        return self._before[-1:] in {b".", b","} and self._before[-2:-1].isdigit()

    def ends_at(self, index: int) -> bool:
        """Nothing stands directly behind the group that makes it a part of something longer."""
        if index + 1 < len(self.groups):
            return self.separators[index + 1] not in _TIGHT
        return not self._goes_on

    def is_marked(self, index: int) -> bool:
        """The first group is the rest of an identifier, or a ticket's: `ORD-4539…`, `#4539…`, `/A/4539…`."""
        if index:
            return False
        last = self._before[-1:]
        return last in {b"#", b"$"} or (last in {b"-", b"/"} and self._before[-2:-1].isalnum())
