import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.retrieval.splitting import split

LONG = "A sentence of some length stands here. " * 60


def test_headings_stand_over_their_passages():
    """A passage says what it is about: the headings above it, and no others."""
    text = f"# Leave\n\n{'Intro. ' * 40}\n\n## Parents\n\nSixteen weeks. {'x ' * 120}\n\n# Pay\n\nMonthly."
    first, second, third = split(text, ".md")
    assert first.startswith("Leave\nIntro.")
    assert second.startswith("Leave > Parents\nSixteen weeks.")
    assert third == "Pay\nMonthly."


def test_long_paragraphs_are_cut_between_sentences():
    """No passage is longer than the limit, and no sentence is torn that need not be."""
    passages = split(LONG, ".txt")
    assert len(passages) > 1
    assert all(len(passage) <= 1_200 for passage in passages)
    assert all(passage.endswith(".") for passage in passages)


def test_short_paragraphs_are_joined():
    """A list of short lines is one passage, not fifty."""
    assert len(split("\n\n".join(f"Line {number}." for number in range(20)), ".txt")) == 1


def test_a_hash_in_code_is_no_heading():
    """Comments in a code block do not become headings."""
    (passage,) = split("Do this:\n\n```\n# a comment\n\n# another\nrun\n```\n\nDone.", ".md")
    assert "# a comment" in passage


def test_html_becomes_text():
    """Tags, scripts and styles go; headings stay headings."""
    html = (
        "<head><title>T</title></head><h1>Leave</h1><p>30 days &amp; more</p><script>bad()</script><ul><li>a<li>b</ul>"
    )
    (passage,) = split(html, ".html")
    assert passage == "Leave\n30 days & more\n\na\n\nb"


@pytest.mark.parametrize("text", ["", "\n\n\n", "# Only a heading"])
def test_nothing_to_find(text):
    """A document without text has no passages."""
    assert split(text, ".md") == []


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=5_000))
def test_any_text_is_split_within_bounds(text):
    """Whatever a document holds, its passages are bounded, and its words are all there."""
    passages = split(text, ".txt")
    assert all(0 < len(passage) <= 1_400 for passage in passages)
    if "#" not in text and "```" not in text and "\x00" not in text:
        assert "".join("".join(passages).split()) == "".join(text.split())
