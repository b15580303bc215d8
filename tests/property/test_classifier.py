import itertools
from functools import cache

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.classification.classifier import Classifier, Recognizer
from gateway.classification.texts import texts_of
from gateway.inference.request import InferenceRequest

PIECES = [
    "4111 1111 1111 1111", "5500005555555559", "DE89 3704 0044 0532 0130 00", "bob@corp.com", "+49 30 901820",
    "415-555-2671", "536-90-4399", "81.2.69.142", "2606:4700:4700::1111", "AB123456C", "123.456.789-09", "order no. ",
    "SSN ", "tel ", "version ", "#", "-", ".", " ", "\n", "\\n", "12", "é", "–", "\u200b", "４", "١", "\\u0040", "@",
    "x", "-----BEGIN PRIVATE KEY-----",
    "https://u:s3cr3tpw@host/", "%40", "(", "00", "/", "a1", "passport K1234567",
]  # fmt: skip
TEXTS = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


@cache
def classifier():
    """Compiled once; with time enough on any machine."""
    return Classifier(Recognizer(), dictionary={"word": ["Bluebird", "straße"]}, limit_s=5)


def labels(*texts):
    """The labels of these texts."""
    return classifier().classify(texts).labels


def request(content):
    """A request with a message of this content."""
    fields = {"messages": msgspec.Raw(msgspec.json.encode([{"role": "user", "content": content}]))}
    return InferenceRequest(surface="chat", model="m", messages=(), fields=fields)


@settings(deadline=None, max_examples=300)
@given(TEXTS)
def test_any_text_is_read(text):
    """No text is too strange, and whatever is found says so by its labels."""
    found = classifier().classify([text])
    assert found.unread == ""
    assert bool(found.labels) == (found.result == "found")


@settings(deadline=None, max_examples=300)
@given(TEXTS, TEXTS, TEXTS)
def test_adding_text_removes_no_label(before, text, after):
    """A label that a text has is there whatever messages stand before and behind it."""
    assert labels(text) <= labels(before, text, after)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join), st.lists(st.integers(0, 150), max_size=3))
def test_cutting_into_parts_removes_no_label(text, cuts):
    """However a text is cut into the parts of a message, its labels are found."""
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    parts = [{"type": "text", "text": text[a:b]} for a, b in itertools.pairwise(places)]
    whole = texts_of(request(text)).texts
    cut = texts_of(request(parts)).texts
    assert labels(*whole) <= labels(*cut)


@settings(deadline=None, max_examples=200)
@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.text()), st.lists, max_leaves=20))
def test_any_json_is_read(value):
    """Whatever JSON a field holds, its text is collected."""
    fields = {"extra": msgspec.Raw(msgspec.json.encode(value))} if _fits(value) else {}
    texts_of(InferenceRequest(surface="chat", model="m", messages=(), fields=fields))


def _fits(value):
    try:
        msgspec.json.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return False
    return True
