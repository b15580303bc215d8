"""Numbers, and what they may be: accounts, cards, phone numbers, numbers of persons, IP addresses.

A run of digits with single spaces, dots, dashes, slashes and brackets between them is read as groups. Any row of groups
whose form is known (`4 4 4 4`, `3-2-4`) is put to the rules for that form. Account numbers (IBAN) are looked for on the
same way, so that their digits are taken for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import re2

from gateway.classification import phones
from gateway.classification.addresses import is_ipv4
from gateway.classification.cards import is_card
from gateway.classification.ibans import IBAN, is_iban
from gateway.classification.kinds import Kind
from gateway.classification.national_ids import NUMBER_IDS
from gateway.classification.phones import NumberingPlans
from gateway.classification.piece import Piece
from gateway.classification.runs import MOST_GROUPS, OCTETS, Rule, Run, Shapes

HINT = r"\d(?:[ .()/-]{0,3}\d){6}|\d\.\d{1,3}\.\d{1,3}\.\d|(?i:\b[A-Z]{2}\d\d[ -]?[0-9A-Z]{4}[ -]?[0-9A-Z]{4})"
RUN = r"\d(?:[ .()/-]{0,3}\d){6}(?:[ .()/-]{0,3}\d)*|\d{1,3}(?:\.\d{1,3}){3}"

KINDS = frozenset({Kind.CARD, Kind.IBAN, Kind.NATIONAL_ID, Kind.PHONE, Kind.IP})

_FEWEST_DIGITS = 9
"""Of all forms but those of phone numbers."""
_PLUS = frozenset(b"+(")
_DIGITS = frozenset(b"0123456789")
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
        self._shapes = Shapes(rules_by_form(self._plans))

    def find(self, piece: Piece, kinds: list[Kind]) -> None:
        """Add the kinds of the numbers in `piece`. Raises OutOfTime."""
        data = piece.data
        for found in self._pattern.finditer(data):
            piece.clock.check()
            start, end = found.span()
            if data[start] in _DIGITS:
                self._read(piece, start, end, kinds)
            elif is_iban(data[start:end].decode()):
                kinds.append(Kind.IBAN)
            else:
                # No account: what is behind its first letters may be something else.
                for inner in self._digits.finditer(data, start + 2, end):
                    start, end = inner.span()
                    self._read(piece, start, end, kinds)

    def _read(self, piece: Piece, start: int, end: int, kinds: list[Kind]) -> None:
        """Add what is found in one run of digits."""
        shape = self._shapes.of(piece.data[start:end])
        run = Run(piece, start, end, shape)
        if self._is_too_short(run, 0):
            return
        index, groups = int(run.begins_inside), shape.size
        while index < groups:
            piece.clock.check()
            kind, index = self._at(run, index)
            if kind is not None:
                kinds.append(kind)
            elif index < groups and self._is_too_short(run, index):
                return

    @staticmethod
    def _is_too_short(run: Run, first: int) -> bool:
        """From `first` on, for everything but addresses and phone numbers that are named as such: a date, an amount."""
        shape = run.shape
        if shape.upto[-1] - shape.upto[first] >= _FEWEST_DIGITS:
            return False
        start = run.start + shape.starts[first]
        if first == 0:
            return not (shape.is_address or run.before in _PLUS or run.is_dialled)
        data = run.piece.data
        if data.count(b".", start, run.end) == OCTETS - 1 or data[start - 1] in _PLUS:
            return False
        return not run.is_dialled or not run.cues.are_near("phone", start, run.end)

    def _at(self, run: Run, first: int) -> tuple[Kind | None, int]:
        """What begins at group `first`, if anything, and the group to go on with."""
        if first == 0 and run.has_plus:
            last = self._international(run, first)
            return (Kind.PHONE, last + 1) if last is not None else (None, first + 1)
        if run.is_joined(first):
            return None, first + 1
        shape = run.shape
        if shape.rows(first):
            kind, last = self._by_form(run, first)
            if kind is not None:
                return kind, last + 1
        if shape.is_dotted(first) and self._is_ipv4(run, first):
            return Kind.IP, first + OCTETS
        end = None
        if shape.lengths[first] > 1 and run.piece.data.startswith(b"00", run.start + shape.starts[first]):
            end = self._international(run, first, skip=2)
        if end is None and run.is_dialled:
            end = self._dialled(run, first)
        return (None, first + 1) if end is None else (Kind.PHONE, end + 1)

    @staticmethod
    def _by_form(run: Run, first: int) -> tuple[Kind | None, int]:
        """The kind of the longest row of groups from `first` on that a rule takes, and its last group."""
        shape = run.shape
        for last, rules in shape.rows(first):
            if last + 1 == shape.size and not run.ends_at(last):
                continue
            digits = run.digits(first, last)
            if digits.count(digits[0]) == len(digits):
                continue
            start, end = run.start + shape.starts[first], run.start + shape.ends[last]
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
        start, end = run.start + run.shape.starts[first], run.start + run.shape.ends[first + OCTETS - 1]
        sure = is_ipv4(run.piece.data, start, end)
        if sure is None:
            return run.cues.name(("ip",), start, end) and not run.cues.refuse(start)
        return sure and not run.cues.refuse(start)

    def _international(self, run: Run, first: int, skip: int = 0) -> int | None:
        """The last group of the phone number that begins at `first` with a country's code."""
        upto = run.shape.upto
        for last in range(min(first + MOST_GROUPS, run.shape.size) - 1, first - 1, -1):
            fits = phones.SHORTEST < upto[last + 1] - upto[first] - skip <= phones.LONGEST
            if fits and run.ends_at(last) and self._plans.is_international(run.digits(first, last)[skip:]):
                return last
        return None

    def _dialled(self, run: Run, first: int) -> int | None:
        """The last group of a number as it is dialled in one of the likely countries, behind a word for phones."""
        shape = run.shape
        for last in range(min(first + MOST_GROUPS, shape.size) - 1, first - 1, -1):
            fits = phones.SHORTEST <= shape.upto[last + 1] - shape.upto[first] <= phones.LONGEST
            if not fits or not run.ends_at(last):
                continue
            start, end = run.start + shape.starts[first], run.start + shape.ends[last]
            if not run.cues.name(("phone",), start, end) or run.cues.refuse(start):
                return None
            if self._plans.is_dialled(run.digits(first, last)):
                return last
        return None
