"""What must hold for every stream and every body, however it is split or spelled."""

import json
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BackendError, InvalidRequest
from gateway.inference.deployment import FREE, Backend, Deployment
from gateway.inference.events import Relayed, UsageReported
from gateway.wire.json_body import read_object
from gateway.wire.openai_chat import StreamDecoder, decode_request, encode_request
from gateway.wire.sse import SSEDecoder

DEPLOYMENT = Deployment(id="c/m", backend=Backend(name="c", type="openai", region="eu"), model="m", price=FREE)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def _chunk(text, finish, spaced):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    separators = (", ", ": ") if spaced else (",", ":")
    return json.dumps({"id": "x", "choices": [choice]}, ensure_ascii=False, separators=separators).encode()


PAYLOADS = st.one_of(
    st.builds(_chunk, TEXT, st.sampled_from([None, None, "stop"]), st.booleans()),
    st.sampled_from(
        [
            *(b"[DONE]", b"", b"{garbage", b'{"choices":[]}', b'{"error":{"message":"no"}}', b"null"),
            b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
        ]
    ),
)
LINE_ENDS = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r"])
EXTRAS = st.sampled_from([b"", b"", b"", b": c", b"event: message", b"id: 1", b"event: error"])


@st.composite
def streams(draw):
    """A stream of events in any notation; it may end anywhere."""
    stream = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"]))
    for payload in draw(st.lists(PAYLOADS, max_size=6)):
        end, extra = draw(LINE_ENDS), draw(EXTRAS)
        stream += (extra + end if extra else b"") + b"data: " + payload + end + end
    return stream[: draw(st.integers(0, len(stream)))] if draw(st.booleans()) else stream


def _split(data, cuts):
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def _outcome(reads):
    """All that a client and the books would see: bytes, text, finish, usage, and how it ended."""
    decoder = StreamDecoder(deployment="d")
    events, ended = [], "complete"
    try:
        for read in reads:
            events += decoder.feed(read)
            if decoder.ended:
                break
        events += decoder.close()
    except BackendError as error:
        ended = f"{type(error).__name__}: {error.message}"
    relayed = [event for event in events if isinstance(event, Relayed)]
    return (
        b"".join(event.data for event in relayed),
        "".join(event.text for event in relayed),
        [event.finish_reason for event in relayed if event.finish_reason],
        sum(event.content_bytes for event in relayed),
        [event for event in events if isinstance(event, UsageReported)],
        ended,
    )


@settings(max_examples=400, deadline=None)
@given(streams(), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_of_a_stream_decodes_alike(stream, cuts):
    """Where the network splits a stream changes nothing of what it says."""
    assert _outcome(_split(stream, cuts)) == _outcome([stream])


@settings(max_examples=100, deadline=None)
@given(streams())
def test_stream_byte_by_byte_decodes_alike(stream):
    """Not even when it comes byte by byte."""
    assert _outcome([bytes([byte]) for byte in stream]) == _outcome([stream])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=8))
def test_any_bytes_give_an_answer_or_an_error(data, cuts):
    """No bytes at all make the decoder fail in a way that is not one of its errors."""
    assert _outcome(_split(data, cuts)) == _outcome([data])


@settings(max_examples=200, deadline=None)
@given(streams())
def test_what_is_relayed_is_plain(stream):
    """What goes to a client is nothing but plain `data` events with JSON in them."""
    data = _outcome([stream])[0]
    payloads = SSEDecoder().plain_payloads(data) if data else []
    assert payloads is not None
    for payload in payloads:
        assert json.loads(payload)["choices"]


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(TEXT.map(lambda name: f"x_{name}"), VALUES, max_size=5), st.booleans(), st.booleans())
def test_unknown_fields_survive_byte_for_byte(unknown, ascii_only, spaced):
    """Encoding what was decoded keeps every unknown field exactly as the client wrote it."""
    separators = (", ", ": ") if spaced else (",", ":")
    raw = {key: json.dumps(value, ensure_ascii=ascii_only, separators=separators) for key, value in unknown.items()}
    members = [f"{json.dumps(key, ensure_ascii=False)}:{value}" for key, value in raw.items()]
    known = ['"model":"a"', '"messages":[{"role":"user","content":"x"}]']
    body = ("{" + ",".join([*known, *members]) + "}").encode()
    request = decode_request(body)
    sent = encode_request(request, DEPLOYMENT, max_tokens=None)
    assert {key: bytes(request.fields[key]) for key in raw} == {key: value.encode() for key, value in raw.items()}
    assert sent == body.replace(b'"model":"a"', b'"model":"m"', 1)


@settings(max_examples=300, deadline=None)
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_bodies_without_a_repeated_key_are_never_refused(value, ascii_only, indent):
    """However a body is spelled, a key is said to be given twice only if it is."""
    body = json.dumps({"a": value}, ensure_ascii=ascii_only, indent=indent).encode()
    assert read_object(body) == {"a": value}


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=4), VALUES, st.data())
def test_repeated_key_is_always_found(members, wrapped, data):
    """A key given twice is found at any depth, whatever the two values are."""
    repeated = data.draw(st.sampled_from(sorted(members)))
    pairs = [*members.items(), (repeated, data.draw(VALUES))]
    inner = "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs) + "}"
    body = f'{{"w":[{json.dumps(wrapped)},{inner}]}}'.encode()
    try:
        read_object(body)
    except InvalidRequest as error:
        assert "twice" in error.message  # noqa: PT017  # the other way out is the failure below
    else:
        raise AssertionError(body)
