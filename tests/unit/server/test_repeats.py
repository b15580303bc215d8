import json

import pytest

from gateway.errors import InvalidRequest
from gateway.server import repeats
from gateway.server.repeats import Repeats
from gateway.wire.openai_chat import decode_request


def body(text="Hi") -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()


def test_what_came_before_is_not_decoded_again():
    """The same bytes of the same tenant give the same request, decoded once."""
    decoded = Repeats(decode_request)
    assert decoded.decode("acme", body()) is decoded.decode("acme", body())
    assert decoded.decode("acme", body()) is not decoded.decode("acme", body("Ho"))


def test_tenants_do_not_share():
    """Another tenant's body is decoded anew: its speed tells nothing about others."""
    decoded = Repeats(decode_request)
    assert decoded.decode("acme", body()) is not decoded.decode("other", body())


def test_memory_is_bounded(monkeypatch):
    """The least recently used bodies go first, and long ones are never kept."""
    monkeypatch.setattr(repeats, "_MOST_BYTES", 3 * len(body("0")))
    decoded = Repeats(decode_request)
    first = decoded.decode("acme", body("0"))
    for text in "123":
        assert decoded.decode("acme", body("0")) is first
        decoded.decode("acme", body(text))
    assert [json.loads(key[1])["messages"][0]["content"] for key in decoded._decoded] == ["2", "0", "3"]
    decoded.decode("acme", body("x" * 20_000))
    assert decoded._bytes <= 3 * len(body("0"))


def test_errors_are_not_kept():
    """A body that is wrong is wrong each time."""
    decoded = Repeats(decode_request)
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            decoded.decode("acme", b"{")
    assert not decoded._decoded
