import base64
import zlib

import pytest

from gateway.cache.entry import Entry, EntryCodec
from gateway.cache.sealing import Sealer, read_keys
from gateway.errors import SettingsError
from gateway.inference.events import Finished, TextDelta

OLD, NEW = b"o" * 32, b"n" * 32
ENTRY = Entry(0.0, 60.0, 0.0, 7, "chat", [TextDelta("the secret answer"), Finished("stop")])


def codec(*keys):
    return EntryCodec(1_000_000, Sealer(keys) if keys else None)


def test_nothing_can_be_read_without_the_key():
    """Sealed entries show no text, differ each time, and are no entry to whoever has another key or none."""
    sealed = codec(NEW).encode(ENTRY, "a")
    assert b"secret" not in sealed
    assert sealed != codec(NEW).encode(ENTRY, "a")
    assert codec(NEW).decode(sealed, "a") == ENTRY
    for other in (codec(OLD), codec()):
        with pytest.raises(ValueError, match="key"):
            other.decode(sealed, "a")


def test_the_key_can_be_changed():
    """The first key seals, all open; entries of before encryption are still read."""
    both = codec(NEW, OLD)
    assert both.decode(codec(OLD).encode(ENTRY, "a"), "a") == ENTRY
    assert codec(NEW).decode(both.encode(ENTRY, "a"), "a") == ENTRY
    assert both.decode(codec().encode(ENTRY, "a"), "a") == ENTRY
    with pytest.raises(ValueError, match="key"):
        codec(OLD).decode(both.encode(ENTRY, "a"), "a")


def test_an_entry_cannot_be_moved_or_changed():
    """Under another name, or with one byte changed, it is no entry."""
    sealed = codec(NEW).encode(ENTRY, "a")
    with pytest.raises(ValueError, match="another name"):
        codec(NEW).decode(sealed, "b")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises((ValueError, zlib.error)):
            codec(NEW).decode(bytes(changed), "a")


def test_large_answers_are_deflated_before_they_are_sealed():
    """What is sealed cannot be compressed any more."""
    large = Entry(0.0, 60.0, 0.0, 0, "chat", [TextDelta("x" * 100_000), Finished("stop")])
    sealed = codec(NEW).encode(large, "a")
    assert len(sealed) < 2_000
    assert codec(NEW).decode(sealed, "a") == large


def test_keys_are_read_from_base64():
    """Commas, spaces and lines divide keys; both alphabets are taken."""
    words = [base64.b64encode(OLD).decode(), base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode()]
    assert read_keys(f"{words[0]},\n {words[1]}\n") == (OLD, b"\xfb\xff" * 16)


@pytest.mark.parametrize("text", ["short", "####", base64.b64encode(b"x" * 31).decode()])
def test_a_key_that_is_none(text):
    """The sentence says which key and what is wrong, and does not show it."""
    with pytest.raises(ValueError, match="key 2") as told:
        read_keys(base64.b64encode(OLD).decode() + " " + text)
    assert text not in str(told.value)


def test_no_keys():
    """Settings that name no key are refused: nobody should believe that answers are encrypted."""
    with pytest.raises(SettingsError):
        Sealer(())
