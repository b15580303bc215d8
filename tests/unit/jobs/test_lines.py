import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BodyTooLarge, InvalidRequest
from gateway.jobs import lines as lines_module
from gateway.jobs.lines import Lines, lines_of


def text_of(count, size=10):
    return "".join(
        json.dumps({"custom_id": f"é{n}", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x" * size}})
        + "\n"
        for n in range(count)
    ).encode()


def pieces_of(data, cuts):
    lines, found, start = Lines(10**9), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += lines.feed(data[start:cut])
        start = cut
    return lines, [*found, *lines.end()]


@given(st.lists(st.integers(0, 9_000), max_size=20), st.booleans())
def test_a_file_is_the_same_in_whatever_pieces_it_comes(cuts, ends_with_a_newline):
    """Cut anywhere, in the middle of a character too, a file gives the same pieces of whole lines."""
    data = text_of(120)
    lines, pieces = pieces_of(data if ends_with_a_newline else data.rstrip(b"\n"), cuts)
    assert b"".join(piece.data for piece in pieces) == data
    assert [piece.lines for piece in pieces] == [50, 50, 20]
    assert (lines.count, lines.urls) == (120, {"/v1/embeddings"})
    read = [line.custom_id for index, piece in enumerate(pieces) for line in lines_of(piece.data, 1 + 50 * index)]
    assert read == [f"é{n}" for n in range(120)]


def test_long_lines_make_short_pieces():
    """A piece has few long lines, so that none is large."""
    _, pieces = pieces_of(text_of(10, 100_000), [])
    assert [piece.lines for piece in pieces] == [3, 3, 3, 1]


def test_empty_lines_are_passed_over():
    """Blank lines and carriage returns are no lines."""
    _, pieces = pieces_of(b"\r\n\n".join(text_of(3).splitlines()) + b"\n\n \n", [])
    assert [piece.lines for piece in pieces] == [3]


@pytest.mark.parametrize(
    ("limit", "data"),
    [
        ("most_bytes", text_of(100)),
        ("MOST_LINES", text_of(12)),
        ("LONGEST_LINE_BYTES", text_of(1, 2_000)),
        ("LONGEST_LINE_BYTES", text_of(1, 2_000).rstrip(b"\n")),
    ],
)
def test_limits(monkeypatch, limit, data):
    """Too many bytes, too many lines, and a line that is too long are refused as soon as they are seen."""
    if limit != "most_bytes":
        monkeypatch.setattr(lines_module, limit, 11 if limit == "MOST_LINES" else 1_000)
    lines = Lines(5_000)
    with pytest.raises(BodyTooLarge):
        [*lines.feed(data), *lines.end()]


def test_a_custom_id_is_its_lines_own():
    """The same custom_id twice is told with the line where it came again."""
    lines = Lines(10**6)
    with pytest.raises(InvalidRequest, match="Line 4"):
        list(lines.feed(text_of(3) + text_of(1)))


def test_a_carriage_return_within_a_line_ends_no_line():
    """It is white space of JSON's: a line that was taken is read again as the same line."""
    lines, pieces = pieces_of(text_of(3).replace(b", ", b",\r"), [])
    assert lines.count == 3
    assert [line.custom_id for piece in pieces for line in lines_of(piece.data, 1)] == ["é0", "é1", "é2"]
