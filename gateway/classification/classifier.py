"""Finds personal data and secrets in the text of a request, by their form.

One pass of RE2 over the text tells which forms may be there: in most texts none, and that is all that they cost. Only
then the finders of these forms look for spans, and each span has to pass its check (check digits, numbering plans,
words beside it). RE2 takes time in proportion to the text whatever is in it; what comes after is bounded by a limit.
Names of people are not found: list them in a tenant's dictionary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec
import re2

from gateway.classification.addresses import IPV6, emails, is_email, is_ipv6
from gateway.classification.credentials import CREDENTIALS, Credential
from gateway.classification.cues import CueWords
from gateway.classification.dictionary import Dictionary
from gateway.classification.folding import fold
from gateway.classification.kinds import ALL_KINDS, LABELS, UNCLASSIFIED, Kind
from gateway.classification.piece import Clock, OutOfTime, Piece, pieces_of
from gateway.classification.texts import texts_of
from gateway.inference.request import InferenceRequest

if TYPE_CHECKING:
    from gateway.classification.national_ids import MixedId

DEFAULT_LIMIT_S = 0.02
MOST_CHARACTERS = 4_000_000
"""What is longer is not begun: folding it alone would take longer than any sensible limit."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a text has in it. Never the text."""

    labels: frozenset[str] = frozenset()
    spans: dict[str, int] = {}
    """How many of each kind were found; about, since parts of a text may be read twice."""
    seconds: float = 0.0
    """What it took."""
    unread: str = ""
    """Why not all of it was read: `too_long`, `too_slow`, `not_text` (images, audio, files); empty when it was."""
    looked: bool = False
    """Something was looked for; False where the classifier is off."""

    @property
    def result(self) -> str:
        """For metrics: `clean`, `found`, `unclassified` when not all was read; empty where nothing was looked for."""
        if not self.looked:
            return ""
        if self.unread:
            return UNCLASSIFIED
        return "found" if self.labels else "clean"


Find = Callable[[Piece, list[Kind]], None]
"""Adds a kind for each span of it; what was added stays when it raises OutOfTime."""


class Finder(msgspec.Struct, frozen=True):
    """A form: the hint that it may be there, and the search for its spans."""

    kinds: frozenset[Kind]
    hint: str
    find: Find


class Recognizer:
    """All finders. One is enough for all tenants; compiled by `warm`, or by their first use."""

    def warm(self) -> None:
        """Compile everything now: tens of milliseconds that no request has to wait for."""
        self.words, self._finders, self._hints  # noqa: B018 each is made when it is first looked at

    @cached_property
    def words(self) -> CueWords:
        """The words beside a number that say what it is."""
        return CueWords()

    @cached_property
    def _finders(self) -> tuple[Finder, ...]:
        return tuple(self._make_finders())

    @cached_property
    def _hints(self) -> re2.Set:
        return _set([finder.hint for finder in self._finders])

    def read(self, piece: Piece, kinds: frozenset[Kind], found: list[Kind]) -> None:
        """Add what is found in `piece`, and perhaps more than `kinds`. Raises OutOfTime."""
        hinted = self._hints.Match(piece.data)
        # The empty pattern is always found: without it RE2 ran out of memory, and has read nothing.
        indices = hinted if 0 in hinted else range(1, len(self._finders) + 1)
        for index in indices:
            if index == 0:
                continue
            finder = self._finders[index - 1]
            if not finder.kinds.isdisjoint(kinds):
                finder.find(piece, found)

    def _make_finders(self) -> Iterator[Finder]:
        """All of them; their order is that of the hints."""
        # With the numbering plans of all countries: loaded when they are compiled, not when the gateway starts.
        from gateway.classification import numbers
        from gateway.classification.national_ids import MIXED_IDS

        yield Finder(frozenset({Kind.EMAIL}), r"(?:@|%40)[\pL\pN]", _find_emails)
        yield Finder(
            frozenset({Kind.IP}), r"\b[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]", _span_finder(Kind.IP, IPV6, _plainly(is_ipv6))
        )
        for known in MIXED_IDS:
            # Without its word a passport's number is anything; so the words are the hint.
            hint = r"(?i)pass[ae]?p|paspoort|reisepass|ausweis" if known.tag == "passport" else known.pattern
            yield Finder(
                frozenset({Kind.NATIONAL_ID}), hint, _span_finder(Kind.NATIONAL_ID, known.pattern, _mixed_check(known))
            )
        yield Finder(numbers.KINDS, numbers.HINT, numbers.Numbers().find)
        for form in CREDENTIALS:
            yield Finder(frozenset({Kind.SECRET}), form.pattern, _credential_finder(form))


class Classifier:
    """A recognizer with what one tenant wants found. Immutable; its time limit is for one text, however long."""

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        kinds: frozenset[Kind] = ALL_KINDS,
        dictionary: Mapping[str, Iterable[str]] | None = None,
        limit_s: float = DEFAULT_LIMIT_S,
    ) -> None:
        self.kinds = kinds
        self.limit_s = limit_s
        self._recognizer = recognizer
        self._dictionary = Dictionary(dictionary) if dictionary else None

    def warm(self) -> None:
        """Compile everything now, from any thread."""
        self._recognizer.warm()

    @property
    def is_off(self) -> bool:
        """There is nothing to look for."""
        return not self.kinds and self._dictionary is None

    def classify(self, texts: Iterable[str], *, unread: bool = False) -> Found:
        """What is in `texts`. `unread`: there is more than text (see `texts.Texts`). Never raises."""
        return Found() if self.is_off else self._classify(texts, unread=unread, started=time.perf_counter())

    def classify_request(self, request: InferenceRequest) -> Found:
        """What is in all text that a backend would get with `request`. Never raises."""
        if self.is_off:
            return Found()
        started = time.perf_counter()
        read = texts_of(request)
        return self._classify(read.texts, unread=read.unread, started=started)

    def _classify(self, texts: Iterable[str], *, unread: bool, started: float) -> Found:
        found: list[Kind] = []
        labels: set[str] = set()
        why = "not_text" if unread else ""
        text = "\n".join(texts)
        if len(text) > MOST_CHARACTERS:
            text, why = text[:MOST_CHARACTERS], "too_long"
        try:
            self._read(text, found, labels)
        except OutOfTime:
            why = "too_slow"
        spans: dict[str, int] = {}
        for kind in found:
            if kind in self.kinds:
                spans[kind.value] = spans.get(kind.value, 0) + 1
                labels.update(LABELS[kind])
        if why:
            labels.add(UNCLASSIFIED)
        seconds = time.perf_counter() - started
        return Found(
            labels=frozenset(labels),
            spans=spans,
            seconds=seconds,
            unread=why,
            looked=True,
        )

    def _read(self, text: str, found: list[Kind], labels: set[str]) -> None:
        if self.kinds:
            self._recognizer.warm()  # what is still to be compiled is not this text's time
        clock = Clock(self.limit_s)
        for data in pieces_of(fold(text)):
            if self.kinds:
                self._recognizer.read(Piece(data, self._recognizer.words, clock), self.kinds, found)
            if self._dictionary is not None:
                named = self._dictionary.find(data)
                if named is None:
                    raise OutOfTime
                labels.update(named)
            clock.look()


Check = Callable[[Piece, int, int], bool]


def _span_finder(kind: Kind, pattern: str, check: Check) -> Find:
    compiled = _compiled(pattern)

    def find(piece: Piece, kinds: list[Kind]) -> None:
        at = 0
        while (found := compiled.search(piece.data, at)) is not None:
            piece.clock.check()
            start, end = found.span()
            right = check(piece, start, end)
            if right:
                kinds.append(kind)
            # What was taken for one may hide another, which begins behind the next space.
            space = piece.data.find(b" ", start, end)
            at = end if right or space < 0 else space

    return find


def _find_emails(piece: Piece, kinds: list[Kind]) -> None:
    for start, end in emails(piece.data):
        piece.clock.check()
        if is_email(piece.data, start, end):
            kinds.append(Kind.EMAIL)


def _credential_finder(form: Credential) -> Find:
    compiled = _compiled(form.pattern)

    def find(piece: Piece, kinds: list[Kind]) -> None:
        for found in compiled.finditer(piece.data):
            piece.clock.check()
            if form.check is None or form.check(found[0]):
                kinds.append(Kind.SECRET)
                return  # one is enough: a second key of the same kind changes no label

    return find


def _plainly(check: Callable[[bytes, int, int], bool]) -> Check:
    return lambda piece, start, end: check(piece.data, start, end)


def _mixed_check(known: MixedId) -> Check:
    def check(piece: Piece, start: int, end: int) -> bool:
        data = piece.data
        joined = (
            data[max(0, start - 1) : start] in {b"-", b"/", b"=", b"."}
            and data[max(0, start - 2) : start - 1].isalnum()
        )
        if joined or data[end : end + 1] in {b"-", b"/", b"="}:
            return False
        if known.tag and not piece.cues(start, end).name((known.tag, "any"), start, end):
            return False
        return known.check(data[start:end].decode()) and (bool(known.tag) or not piece.cues(start, end).refuse(start))

    return check


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    return options


def _compiled(pattern: str) -> re2._Regexp:
    options = _options()
    options.never_capture = True
    return re2.compile(pattern, options)


def _set(patterns: Iterable[str]) -> re2.Set:
    """A set with an empty pattern first, which is found in every text that could be read."""
    made = re2.Set.SearchSet(_options())
    made.Add("")
    for pattern in patterns:
        made.Add(pattern)
    made.Compile()
    return made
