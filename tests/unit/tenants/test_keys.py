import hashlib
import re

import pytest
from multidict import CIMultiDict

from gateway.errors import Unauthenticated
from gateway.tenants.keys import hash_key, make_key, presented_key


def test_new_keys():
    """A key is `fd-` and 43 characters that are safe in a URL, its hash is SHA-256, and no two are alike."""
    made = [make_key() for _ in range(100)]
    for plain, hashed in made:
        assert re.fullmatch(r"fd-[A-Za-z0-9_-]{43}", plain)
        assert hashed == hashlib.sha256(plain.encode()).hexdigest()
    assert len({plain for plain, _ in made}) == 100


@pytest.mark.parametrize("strange", ["", "ключ", "\udcff", "x" * 100_000])
def test_hash_of_what_is_no_key(strange):
    """Whatever a client sends as a key has a hash, and nobody's."""
    assert re.fullmatch(r"[0-9a-f]{64}", hash_key(strange))


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"authorization": "Bearer k"}, "k"),
        ({"authorization": "bearer k"}, "k"),
        ({"authorization": "BEARER  k "}, "k"),
        ({"x-api-key": " k "}, "k"),
        ({"authorization": "Bearer k", "x-api-key": "k"}, "k"),
        ({"authorization": "Basic dTpw"}, None),
        ({"authorization": "Basic dTpw", "x-api-key": "k"}, "k"),
        ({"authorization": "Bearer"}, None),
        ({"authorization": "Bearer ", "x-api-key": ""}, None),
        ({"authorization": "k"}, None),
    ],
)
def test_key_in_the_headers(headers, key):
    """Bearer in any case, or x-api-key; nothing else is a key."""
    assert presented_key(headers) == key


def test_header_names_in_any_case():
    """A server's headers are found however the client wrote their names."""
    assert presented_key(CIMultiDict({"Authorization": "Bearer k"})) == "k"


def test_two_different_keys():
    """A request that names two payers is refused, and its keys stand in no message."""
    with pytest.raises(Unauthenticated) as caught:
        presented_key({"authorization": "Bearer one-key", "x-api-key": "other-key"})
    assert "one-key" not in caught.value.message
    assert "other-key" not in caught.value.message
