"""The rules for every JSON body."""

import json

import pytest

from gateway.errors import InvalidRequest
from gateway.wire.json_body import read_object

GOOD = [
    b"{}",
    b' { "a" : [1, 2.0, true, null, "x"] } ',
    b'{"a":{"b":1},"c":{"b":1}}',
    b'{"a":"b:c","d":"{\\"a\\":1,\\"a\\":2}"}',
    b'{"a":"\\u00e9","b":"\\/","c":1e2,"d":100.00,"e":"\\\\"}',
    b'{"a\\"b":1,"a":":","\\u0061b":2}',
    json.dumps({"k": ["\x7f", "\u2028", "🙂", "\x01", ":", '"'] * 3}, indent=2).encode(),
]

TWICE = {
    b'{"a":1,"a":2}': "a",
    b'{"a": 1, "a": 1}': "a",
    b'{"x":{"a":1,"a":2}}': "a",
    b'{"x":[[{"a":1,"b":3,"a":2}]]}': "a",
    b'{"messages":[],"\\u006dessages":[]}': "messages",
    b'{"a":1e2,"a":1e5}': "a",
    b'{"n":1e22,"x":{"":0,"":1}}': "",
}


@pytest.mark.parametrize("body", GOOD)
def test_valid_bodies_pass(body):
    """A JSON object in any notation is read as any parser reads it."""
    assert read_object(body) == json.loads(body)


@pytest.mark.parametrize("body", TWICE)
def test_key_given_twice(body):
    """A key that stands twice in one object, at any depth and in any spelling, is refused by name."""
    with pytest.raises(InvalidRequest, match="twice") as caught:
        read_object(body)
    assert caught.value.param == TWICE[body]


def test_key_given_twice_in_a_large_body():
    """A large body is refused too, without the name."""
    body = b'{"a":1,"x":"' + b"y" * 300_000 + b'","a":2}'
    with pytest.raises(InvalidRequest, match="a key is given twice"):
        read_object(body)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"a":NaN}', "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
        (b'{"a":"\\ud800"}', "not valid JSON"),
        (b'{"a":"\x01"}', "not valid JSON"),
        (b'{"a":1e999}', "not valid JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b'{"\xc3\x28":1}', "UTF-8"),
        (b"[1]", "must be a JSON object"),
        (b'"a"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"a":' * 200_000, "nested too deep"),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deep"),
    ],
)
def test_what_is_no_json_object_is_refused(body, word):
    """Whatever is not one JSON object in UTF-8 is refused with the reason."""
    with pytest.raises(InvalidRequest, match=word):
        read_object(body)


@pytest.mark.parametrize("text", ["{" * 60_000, "a," * 1_100_000, "a: b " * 400_000, '{"id": 1, "x": 2}, ' * 70_000])
def test_what_stands_in_a_text_is_no_member(text):
    """A prompt may hold a long table, a program or JSON: only what the body itself is made of takes time to read."""
    value = {"messages": [{"role": "user", "content": text + "x" * 1_000_000}]}
    assert read_object(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "value", [{f"k{number}": "v" for number in range(210_000)}, [{}] * 51_000, [0] * 1_010_000, ["a"] * 1_010_000]
)
def test_too_many_members(value):
    """What others would have to wait for is refused before it is read."""
    with pytest.raises(InvalidRequest, match="too many members"):
        read_object(json.dumps({"x": value, "pad": "x" * 1_000_000}).encode())


def test_a_text_that_never_ends_takes_no_longer():
    """Counting members is linear: here a second reading at each quote would take hours."""
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        read_object(b'{"x": "' + b"{" * 60_000 + b'\\"' * 5_000_000)
