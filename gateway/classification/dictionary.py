"""A tenant's own words: names, projects, whatever its policy lists."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

import re2

MOST_WORDS = 1_000
LONGEST_WORD = 128
_MOST_MEMORY_BYTES = 64 << 20
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR")


class Dictionary:
    """Words by label, found whole and in any case. Made once for each policy."""

    def __init__(self, words: Mapping[str, Iterable[str]]) -> None:
        """Compile `words`, label by label; see `MOST_WORDS` and `LONGEST_WORD` for what is sensible."""
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _MOST_MEMORY_BYTES
        self.labels: list[str] = []
        self._set = re2.Set.SearchSet(options)
        self._set.Add("")
        for label, listed in words.items():
            pattern = _pattern(listed)
            if pattern:
                self._set.Add(f"(?i){pattern}")
                self.labels.append(label)
        self._set.Compile()

    def find(self, data: bytes) -> list[str] | None:
        """The labels whose words are in `data`; None when it could not be read."""
        found = self._set.Match(data)
        # The empty pattern is always found: without it the matcher ran out of memory, and has read nothing.
        return [self.labels[index - 1] for index in found if index] if 0 in found else None


def _pattern(words: Iterable[str]) -> str:
    """One pattern for all of them. Words that are bounded alike stand together: a bound is large in RE2."""
    alike: dict[tuple[str, str], set[str]] = {}
    for word in words:
        # Both of Unicode's ways to write letters with accents; any space stands for any white space.
        for form in ("NFC", "NFD"):
            parts = unicodedata.normalize(form, word).split()
            if parts:
                bounds = _bound(parts[0][0], "^"), _bound(parts[-1][-1], "$")
                alike.setdefault(bounds, set()).add(r"\s+".join(re2.escape(part) for part in parts))
    return "|".join(f"{before}(?:{'|'.join(sorted(some))}){after}" for (before, after), some in alike.items())


def _bound(letter: str, edge: str) -> str:
    """What keeps a word from being found inside another; scripts without spaces have nothing there."""
    if not (letter.isalnum() or unicodedata.combining(letter)) or unicodedata.name(letter, "").startswith(_UNSPACED):
        return ""
    return rf"(?:{edge}|[^\pL\pN\pM_])"
