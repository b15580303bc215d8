import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.modes.changes import MOST_CHARACTERS, apply, changes

SENTENCES = st.lists(
    st.sampled_from(["Yes. ", "No!\n", "Paris is in France. ", "e.g. this", "好。 ", "1.5 ", "\n\n", ""])
)


def test_a_changed_sentence_is_all_that_is_told():
    """What stands around it is not repeated."""
    draft = "Paris is the capital. It lies on the Rhine. It is old."
    final = "Paris is the capital. It lies on the Seine. It is old."
    assert changes(draft, final) == ((22, 44, "It lies on the Seine. "),)


def test_sentences_that_come_and_go():
    """An insertion has no length, a deletion no text; several changes stand in the order of the draft."""
    assert changes("One. Two. Three.", "One. Two. And a half. Three.") == ((10, 10, "And a half. "),)
    assert changes("One. Two. Three.", "One. Three.") == ((5, 10, ""),)
    assert changes("A. B. C. D. E.", "A. x. C. y. E.") == ((3, 6, "x. "), (9, 12, "y. "))


@given(SENTENCES, SENTENCES)
def test_applied_they_make_the_final(one, other):
    """For any two texts, wherever they are told; they never overlap, and are never longer than the final."""
    draft, final = "".join(one), "".join(other)
    found = changes(draft, final)
    if found is not None:
        assert apply(draft, found) == final
        assert all(start <= end for start, end, _ in found)
        assert all(before[1] < after[0] for before, after in pairwise(found))
        assert sum(len(text) for *_, text in found) < max(1, len(final))


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_survives(draft, final):
    """Control characters, lone surrogates' neighbours, anything: exact, or not told."""
    found = changes(draft, final)
    assert found is None or apply(draft, found) == final


def test_what_is_too_much_is_not_told():
    """Another text altogether, and changes without end."""
    assert changes("I like turtles.", "The integral is x.") is None
    assert changes("Same. " + "x" * MOST_CHARACTERS, "Same. " + "y" * (MOST_CHARACTERS + 1)) is None


def test_the_work_is_bounded():
    """Thousands of sentences that are all alike, or none, cost a few milliseconds of an event loop."""
    for draft, final in (("a. " * 6_000, "b. a. " * 3_000), ("a. b. " * 3_000, "b. a. " * 3_000)):
        began = time.process_time()
        changes(draft, final)
        assert time.process_time() - began < 0.5
