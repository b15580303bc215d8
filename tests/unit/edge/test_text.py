import pytest

from gateway.edge.text import Telling, TextGate
from gateway.inference.events import TokenLogprob


def shown(gate: TextGate, pieces: list[bytes]) -> list[str]:
    return [gate.feed(piece) for piece in pieces]


def test_half_a_character_is_held_back():
    """A character comes out when its last byte has come, not before."""
    first, second, third = "é😀".encode()[:3], "é😀".encode()[3:4], "é😀".encode()[4:]
    assert shown(TextGate(), [first, second, third]) == ["é", "", "😀"]


def test_bytes_that_are_no_character_show_as_replacement():
    """Bytes that can never become a character do not hold back what follows."""
    assert "".join(shown(TextGate(), [b"a\xff", b"b"])) == "a\ufffdb"


def test_a_character_that_never_ends_shows_as_replacement_at_the_end():
    """What is left of a character when the answer ends is one U+FFFD."""
    gate = TextGate()
    assert gate.feed("😀".encode()[:2]) == ""
    assert gate.finish() == "\ufffd"


def test_what_may_become_a_stop_string_is_held_back():
    """Text that could be the beginning of a stop string waits until it is certain."""
    gate = TextGate(("END",))
    assert shown(gate, [b"x", b"E", b"N", b"!"]) == ["x", "", "", "EN!"]
    assert not gate.stopped


def test_a_stop_string_and_all_after_it_are_gone():
    """The text ends before the first stop string, wherever the pieces were cut."""
    gate = TextGate(("END", "STOP"))
    assert shown(gate, [b"one E", b"ND two", b" STOP"]) == ["one ", "", ""]
    assert gate.stopped
    assert gate.finish() == ""


def test_the_first_of_several_stop_strings_counts():
    """When one piece completes two stop strings, the text ends at the earlier one."""
    gate = TextGate(("later", "first"))
    assert gate.feed(b"a first b later") == "a "


def test_what_was_held_back_is_text_when_the_answer_ends():
    """An answer that ends in the beginning of a stop string keeps it."""
    gate = TextGate(("END",))
    assert gate.feed(b"the E") == "the "
    assert gate.finish() == "E"


def test_an_empty_stop_string_stops_nothing():
    """A stop string without characters would end every answer before it began; it is ignored."""
    gate = TextGate(("",))
    assert gate.feed(b"text") == "text"
    assert not gate.stopped


@pytest.mark.parametrize("cut", range(1, 12))
def test_repeating_beginnings_do_not_hide_a_stop_string(cut):
    """A stop string is found even when it begins inside a false beginning of itself."""
    data = b"aab aabaaab"
    gate = TextGate(("aabaaab",))
    assert gate.feed(data[:cut]) + gate.feed(data[cut:]) + gate.finish() == "aab "
    assert gate.stopped


def test_a_token_of_which_a_part_is_shown_is_told_once():
    """It is told with its first text; that its end was held back, and came or never came, changes nothing."""
    gate, telling = TextGate((">>",)), Telling()
    told = []
    for piece in (b"a>", b"b>", b">c"):
        text = gate.feed(piece)
        told.append([said.piece for said in telling.take(TokenLogprob(piece, -1.0), len(piece), text, ended=False)])
    assert told == [[b"a>"], [b"b>"], []]
    assert gate.stopped


def test_tokens_of_half_a_character_are_told_together():
    """A character's tokens come with the character."""
    first, second = TokenLogprob("é".encode()[:1], -1.0), TokenLogprob("é".encode()[1:], -2.0)
    telling = Telling()
    assert telling.take(first, 1, "", ended=False) == ()
    assert telling.take(second, 1, "é", ended=False) == (first, second)
    assert telling.take(first, 1, "", ended=False) == ()
    assert telling.rest() == (first,)
    assert telling.rest() == ()
