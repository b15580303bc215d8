"""Answers that are compressed although nobody asked."""

import gzip
import zlib

import pytest

from gateway.backends.content_coding import content_decoder


def test_bomb_comes_in_bounded_pieces():
    """A small read that inflates to 100 MB comes out in pieces of at most 256 KiB, so that it can be stopped."""
    bomb = gzip.compress(bytes(100_000_000), compresslevel=1)
    pieces = content_decoder("gzip").pieces(bomb)
    assert all(len(next(pieces)) <= 256 * 1024 for _ in range(3))


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_split_anywhere(coding, compress):
    """Compressed bytes may be split anywhere."""
    decoder = content_decoder(coding)
    data = compress(b"hello " * 100)
    assert b"".join(piece for byte in data for piece in decoder.pieces(bytes([byte]))) == b"hello " * 100


def test_unknown_coding():
    """A coding that cannot be undone is said to be so; none, and `identity`, are fine."""
    assert content_decoder("br") is None
    assert list(content_decoder("").pieces(b"x")) == [b"x"]
    assert list(content_decoder(" Identity ").pieces(b"x")) == [b"x"]


@pytest.mark.parametrize("cut", range(1, 40))
def test_all_members_of_a_gzip_body_are_read(cut):
    """A body of several members is whole after the last one, wherever it is split; padding after it is none of it."""
    body = gzip.compress(b"first ") + gzip.compress(b"second") + bytes(8)
    decoder = content_decoder("gzip")
    assert b"".join([*decoder.pieces(body[:cut]), *decoder.pieces(body[cut:])]) == b"first second"
