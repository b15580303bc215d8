from hypothesis import given
from hypothesis import strategies as st

from gateway.inference.events import DraftState
from gateway.modes.verdict import judge


def test_same_words_in_other_dress_confirm():
    """Case, punctuation and white space do not make another answer."""
    assert judge("The capital is Paris.", "the capital   is PARIS!") == (DraftState.CONFIRMED, 1.0)


def test_one_changed_sentence_of_three_revises():
    """A final that keeps most sentences changed parts of the draft."""
    draft = "Paris is the capital. It lies on the Seine. It has two million people."
    final = "Paris is the capital. It lies on the Seine. About 2.1 million people live there."
    state, similarity = judge(draft, final)
    assert state is DraftState.REVISED
    assert 0.4 <= similarity < 0.9


def test_another_answer_replaces():
    """Texts that share hardly a word are different answers."""
    state, similarity = judge("I like turtles.", "The integral of x is half x squared.")
    assert state is DraftState.REPLACED
    assert similarity < 0.4


def test_empty_against_text_replaces():
    """Nothing is not similar to something, and nothing to nothing is the same."""
    assert judge("", "x") == (DraftState.REPLACED, 0.0)
    assert judge("", " .")[0] is DraftState.CONFIRMED


def test_megabytes_are_compared_in_bounded_time():
    """A hostile backend's endless text costs no more than the first part of it."""
    state, _ = judge("word " * 100, "word. " * 2_000_000)
    assert state is not DraftState.CONFIRMED


@given(st.text(max_size=200), st.text(max_size=200))
def test_similarity_is_symmetric_and_in_range(one, other):
    """Similarity is a number from 0 to 1, whichever text is the draft."""
    _, forth = judge(one, other)
    _, back = judge(other, one)
    assert forth == back
    assert 0 <= forth <= 1


@given(st.text(max_size=200))
def test_a_text_confirms_itself(text):
    """A final that repeats the draft confirms it."""
    assert judge(text, text) == (DraftState.CONFIRMED, 1.0)
