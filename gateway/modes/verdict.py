"""How a draft compares with its final: pure, stated, and cheap.

similarity = ½ · words + ½ · sentences, or where a route has meanings compared and it was done in time, a third of each
of words, sentences and meaning. In this `words` is the Dice overlap of the two bags of normalised words, and
`sentences` the share of the longer text's sentences that stand, normalised, in the other one too. Normalised: NFKC,
case folded, punctuation and white space collapsed. Texts that are equal when normalised have similarity 1. `meaning` is
the cosine of their sentence embeddings (all-MiniLM-L6-v2), 0..1: it lifts what says the same in other words, and cannot
confirm alone, because it takes a text and its opposite for much the same.

`confirmed` says the same (≥ 0.9), `revised` changed parts (≥ 0.4), `replaced` is another answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from gateway.inference.events import DraftState

CONFIRMED_FROM = 0.9
REVISED_FROM = 0.4
_LONGEST_COMPARED = 20_000
"""Characters of each text that are compared: bounds the work, a draft is far shorter."""

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_NOT_WORD = re.compile(r"[^\w]+")


def judge(draft: str, final: str, meaning: float | None = None) -> tuple[DraftState, float]:
    """The verdict on a complete draft, and its similarity (0..1, two decimals) with the final.

    `meaning` is how alike the two are in what they mean, 0..1, if that was asked.
    """
    found = _similarity(draft[:_LONGEST_COMPARED], final[:_LONGEST_COMPARED])
    if meaning is not None and 0 < found < 1:
        found = (2 * found + meaning) / 3
    similarity = round(found, 2)
    if similarity >= CONFIRMED_FROM:
        return DraftState.CONFIRMED, similarity
    if similarity >= REVISED_FROM:
        return DraftState.REVISED, similarity
    return DraftState.REPLACED, similarity


def _similarity(draft: str, final: str) -> float:
    draft_words, final_words = _normalise(draft), _normalise(final)
    if draft_words == final_words:
        return 1.0
    if not draft_words or not final_words:
        return 0.0
    return (_dice(draft_words, final_words) + _shared_sentences(draft, final)) / 2


def _normalise(text: str) -> list[str]:
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).split()


def _dice(one: list[str], other: list[str]) -> float:
    shared = Counter(one) & Counter(other)
    return 2 * shared.total() / (len(one) + len(other))


def _shared_sentences(one: str, other: str) -> float:
    mine, theirs = _sentences(one), _sentences(other)
    return (mine & theirs).total() / max(mine.total(), theirs.total())


def _sentences(text: str) -> Counter[str]:
    sentences = (" ".join(_normalise(sentence)) for sentence in _SENTENCE_END.split(text))
    return Counter(sentence for sentence in sentences if sentence)
