"""Whose word about a request's origin counts."""

from types import SimpleNamespace

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.server.proxies import Proxies

TRUSTED = ("10.0.0.0/8", "fd00::/8")


def headers(*pairs):
    return CIMultiDictProxy(CIMultiDict(pairs))


def client(peer, *pairs, trusted=TRUSTED):
    return Proxies(trusted).client(peer, headers(*pairs))


def url(peer, *pairs):
    asked = SimpleNamespace(remote=peer, headers=headers(*pairs), scheme="http", host="gateway:8080")
    return Proxies(TRUSTED).url(asked)


def test_nobody_else_is_believed():
    """A client that writes the headers itself says nothing with them; nor does anybody where nobody is trusted."""
    assert client("192.0.2.1", ("x-forwarded-for", "1.2.3.4")) == "192.0.2.1"
    assert client("10.0.0.1", ("x-forwarded-for", "1.2.3.4"), trusted=()) == "10.0.0.1"
    assert client(None) == ""
    assert url("192.0.2.1", ("x-forwarded-proto", "https"), ("x-forwarded-for", "1.2.3.4")) == ""


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("x-forwarded-for", "192.0.2.9")], "192.0.2.9"),
        ([("x-forwarded-for", "1.1.1.1, 192.0.2.9")], "192.0.2.9"),
        ([("x-forwarded-for", "1.1.1.1, 192.0.2.9, 10.9.9.9")], "192.0.2.9"),
        ([("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.9")], "192.0.2.9"),
        ([("x-forwarded-for", "10.1.1.1, 10.9.9.9")], "10.1.1.1"),
        ([("forwarded", "for=192.0.2.9;proto=https;by=10.0.0.1")], "192.0.2.9"),
        ([("forwarded", 'For="[2001:db8::17]:4711"')], "2001:db8::17"),
        ([("forwarded", 'for=1.1.1.1, for="192.0.2.9:443";host="a,b;c"')], "192.0.2.9"),
    ],
)
def test_a_chain_is_followed_as_far_as_it_is_trusted(pairs, expected):
    """From the nearest proxy outwards: the first address that is no trusted proxy's is the client's."""
    assert client("10.0.0.1", *pairs) == expected
    assert client("::ffff:10.0.0.1", *pairs) == expected


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("x-forwarded-for", "unknown")],
        [("x-forwarded-for", "")],
        [("x-forwarded-for", "<script>")],
        [("forwarded", "for=_hidden")],
        [("forwarded", "for")],
        [("forwarded", 'for="1.1.1.1')],
        [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "192.0.2.9")],
    ],
)
def test_what_says_nothing_leaves_the_peer(pairs):
    """What is no address or no such header, or could be the client's own, counts for nothing."""
    assert client("10.0.0.1", *pairs) == "10.0.0.1"


def test_the_url_is_the_one_that_the_client_knows():
    """Scheme and host come from the same proxy as the client's address; hosts that are none are not taken."""
    seen = [("x-forwarded-for", "192.0.2.9"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "api.example.com")]
    assert url("10.0.0.1", *seen) == "https://api.example.com"
    assert url("10.0.0.1", ("forwarded", "for=192.0.2.9;proto=https;host=api.example.com")) == "https://api.example.com"
    chain = "for=1.1.1.1;proto=http;host=evil.example, for=192.0.2.9;proto=https;host=api.example.com, for=10.2.2.2"
    assert url("10.0.0.1", ("forwarded", chain)) == "https://api.example.com"
    assert url("10.0.0.1", *seen[:2], ("x-forwarded-host", "a/b?c")) == "https://gateway:8080"
    assert url("10.0.0.1", seen[0], ("x-forwarded-proto", "gopher")) == "http://gateway:8080"
