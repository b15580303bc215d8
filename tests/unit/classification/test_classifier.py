import time

import pytest

from gateway.classification import classifier as module
from gateway.classification.classifier import Classifier, Recognizer
from gateway.classification.kinds import KINDS, Kind
from gateway.classification.piece import PIECE_BYTES

CARD = "4111 1111 1111 1111"


@pytest.fixture(scope="module")
def recognizer():
    """Compiled once for all tests here."""
    return Recognizer()


def classify(recognizer, *texts, **given):
    """What is found, with time enough."""
    return Classifier(recognizer, limit_s=5, **given).classify(texts)


def test_labels_and_spans(recognizer):
    """A kind gives its labels, and its spans are counted; the text is in no result."""
    found = classify(recognizer, f"{CARD} and 5500 0055 5555 5559", "bob@corp.com")
    assert found.labels == {"personal", "personal.card", "personal.email"}
    assert found.spans == {"card": 2, "email": 1}
    assert found.result == "found"
    assert "4111" not in repr(found)
    assert "bob" not in repr(found)


def test_a_clean_text_has_no_label(recognizer):
    """Nothing found is no label, and says so."""
    found = classify(recognizer, "What is the capital of France?")
    assert (found.labels, found.spans, found.result) == (frozenset(), {}, "clean")


def test_a_secret_is_not_personal(recognizer):
    """A key opens doors but tells of nobody."""
    found = classify(recognizer, "token gh" + "p_" + "a1B2c3D4e5F6" * 3)
    assert found.labels == {"secret"}


def test_only_the_wanted_kinds_are_found(recognizer):
    """A tenant that asks for some kinds gets these alone."""
    found = classify(recognizer, f"{CARD}, bob@corp.com, +49 30 901820", kinds=frozenset({Kind.PHONE}))
    assert found.labels == {"personal", "personal.phone"}


def test_an_account_that_nobody_asks_for_is_no_other_number(recognizer):
    """The digits of an account number are its own, whether or not accounts are looked for."""
    kinds = frozenset({Kind.CARD, Kind.NATIONAL_ID, Kind.PHONE})
    assert classify(recognizer, "DE89 3704 0044 0532 0130 00", kinds=kinds).spans == {}


def test_switched_off(recognizer):
    """Without kinds and words nothing is looked for: no label, not even for what could not be read."""
    classifier = Classifier(recognizer, kinds=frozenset())
    assert classifier.is_off
    found = classifier.classify([CARD], unread=True)
    assert (found.labels, found.result) == (frozenset(), "")


def test_what_is_no_text_is_unclassified(recognizer):
    """Images, sounds and files cannot be read here, so they are never silently clean."""
    found = Classifier(recognizer, limit_s=5).classify([CARD], unread=True)
    assert found.labels == {"personal", "personal.card", "unclassified"}
    assert (found.unread, found.result) == ("not_text", "unclassified")


def test_a_text_beyond_the_length_is_unclassified(recognizer, monkeypatch):
    """A text that is too long is read up to there, and is marked."""
    monkeypatch.setattr(module, "MOST_CHARACTERS", 1_000)
    found = classify(recognizer, CARD, "x" * 1_000)
    assert found.labels == {"personal", "personal.card", "unclassified"}
    assert found.unread == "too_long"


def test_a_text_beyond_the_time_is_unclassified(recognizer):
    """A text that takes longer than the limit is given up soon after it, and is marked."""
    slow = "4111 1111 1111 1112 phone 030 901 820 2 " * 50_000
    classifier = Classifier(recognizer, limit_s=0.02)
    started = time.thread_time()
    found = classifier.classify([CARD, slow])
    assert time.thread_time() - started < 1
    assert found.unread == "too_slow"
    assert "unclassified" in found.labels
    assert "personal.card" in found.labels


@pytest.mark.parametrize("offset", [-600, -20, -10, -1, 0, 1, 300])
@pytest.mark.parametrize("filler", ["word ", "x", "line\n", "0.1, "])
def test_nothing_is_lost_where_pieces_meet(recognizer, offset, filler):
    """A long text is read in pieces, and what lies across two of them is found."""
    before = (filler * PIECE_BYTES)[: PIECE_BYTES + offset - 1]
    text = f"{before} {CARD} {filler * 5_000}"
    assert "personal.card" in classify(recognizer, text).labels


@pytest.mark.parametrize(
    "text",
    [
        "4111\u00a01111\u00a01111\u00a01111",
        "4111\u20111111\u20111111\u20111111",
        "4\u200b111 1111 1111 1111",
        "４１１１ １１１１ １１１１ １１１１",
        "٤١١١ ١١١١ ١١١١ ١١١١",
        "४१११ ११११ ११११ ११११",
        '{"card": "\\u0034111 1111 1111 1111"}',
        "see\\n4111111111111111",
        "see\\t4111111111111111\\r\\n",
    ],
)
def test_spellings(recognizer, text):
    """Other spaces, dashes, digits and escapes hide nothing."""
    assert "personal.card" in classify(recognizer, text).labels


def test_words_of_a_tenant(recognizer):
    """A tenant's words give its label: whole, in any case, however the accents are written; kinds or not."""
    words = {"project": ["Bluebird", "Blue Bird"], "customer": ["Zoë Müller", "山田太郎", "C++"]}
    for text, labels in {
        "the BLUEBIRD launch": {"project"},
        "blue\n bird": {"project"},
        "Bluebirds": set(),
        "Zoe\u0308 Mu\u0308ller called": {"customer"},
        "zoë müllers": set(),
        "私は山田太郎です": {"customer"},
        "in C++, bluebird": {"customer", "project"},
        "nothing": set(),
    }.items():
        for kinds in (frozenset(Kind), frozenset()):
            found = classify(recognizer, text, kinds=kinds, dictionary=words)
            assert found.labels == labels, text
            assert found.result == ("found" if labels else "clean")


def test_many_words(recognizer):
    """A full dictionary is found, and takes no more than the limit for 2 KB."""
    words = {"names": [f"Name{number:04d} Surname{number:04d}" for number in range(1_000)]}
    classifier = Classifier(recognizer, dictionary=words)
    assert classifier.classify(["x " * 1_000 + "NAME0999 surname0999"]).labels == {"names"}


def test_every_kind_is_documented():
    """Each kind has a row, with labels that a client could name as well."""
    assert [facts.kind for facts in KINDS] == list(Kind)
    for facts in KINDS:
        assert facts.labels


def test_what_is_compiled_first_is_not_the_texts_time():
    """The first text of a process is read like all that follow, however long the finders take to compile."""
    assert Classifier(Recognizer(), limit_s=0.01).classify(["nothing of anybody"]).labels == frozenset()


def test_a_matcher_that_runs_out_of_memory_is_noticed(recognizer, monkeypatch):
    """Where RE2 gives up, all finders look; and a dictionary that could not be read makes the text unclassified."""

    class Exhausted:
        def Match(self, data):  # noqa: N802 - RE2's name
            return []

    other = Recognizer()
    monkeypatch.setattr(other, "_hints", Exhausted())
    assert "personal.card" in classify(other, CARD).labels
    classifier = Classifier(recognizer, dictionary={"a": ["Bluebird"]}, limit_s=5)
    monkeypatch.setattr(classifier._dictionary, "_set", Exhausted())
    assert classifier.classify(["bluebird"]).labels == {"unclassified"}
