"""AWS's event stream, and Messages inside it, beside botocore's own reader."""

import binascii
import json

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BackendBroken, BackendCut, BackendRefused
from gateway.wire.aws_event_stream import EventStreamDecoder, EventStreamError
from gateway.wire.hosted_models import BedrockDecoder, hosted_body, without_developer
from tests.upstream.hosted import TEXT, bedrock_chunk, bedrock_exception, event_message, message_events

STREAM = b"".join(bedrock_chunk(event) for event in message_events())


def split(data, sizes):
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


@given(st.lists(st.integers(1, 400), max_size=40))
def test_any_split_reads_as_botocore_reads(sizes):
    """However the bytes are split, headers and payloads are those that AWS's own library finds."""
    decoder, theirs = EventStreamDecoder(), EventStreamBuffer()
    found = [message for piece in split(STREAM, sizes) for message in decoder.feed(piece)]
    theirs.add_data(STREAM)
    expected = [(message.headers, message.payload) for message in theirs]
    assert [(message.headers, message.payload) for message in found] == expected
    assert decoder.is_between


@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at, change):
    """A byte that is not what was sent never becomes part of an answer."""
    spoilt = STREAM[:at] + bytes((STREAM[at] ^ change,)) + STREAM[at + 1 :]
    decoder = EventStreamDecoder()
    try:
        found = decoder.feed(spoilt)
    except EventStreamError:
        return
    assert len(found) < len(message_events())
    assert not decoder.is_between


@given(st.binary(max_size=200))
def test_hostile_headers_end_in_one_error(packed):
    """Headers that are nonsense under a right checksum are refused, and nothing else happens."""
    whole = bytearray(event_message({}, packed))
    whole[4:8] = len(packed).to_bytes(4, "big")
    whole[8:12] = binascii.crc32(whole[:8]).to_bytes(4, "big")
    whole[-4:] = binascii.crc32(whole[:-4]).to_bytes(4, "big")
    try:
        (message,) = EventStreamDecoder().feed(bytes(whole))
    except EventStreamError:
        return
    assert all(isinstance(value, str) for value in message.headers.values())


@given(st.lists(st.integers(1, 400), max_size=40))
def test_bedrocks_events_are_those_of_messages(sizes):
    """The answer's text, its usage with what the cache read and wrote, and its end come through."""
    decoder = BedrockDecoder(deployment="d")
    events = [event for piece in split(STREAM, sizes) for event in decoder.feed(piece)] + decoder.close()
    assert "".join(getattr(event, "text", "") for event in events) == TEXT
    usage = decoder.usage
    assert (usage.input_tokens, usage.cached_input_tokens, usage.cache_write_tokens) == (16, 4, 3)


def test_a_stream_that_ends_too_soon_is_cut():
    """Neither between two events nor inside one may a stream end before the message does."""
    for end in (len(STREAM) - 1, len(STREAM) - 500, len(bedrock_chunk(message_events()[0]))):
        decoder = BedrockDecoder(deployment="d")
        decoder.feed(STREAM[:end])
        with pytest.raises(BackendCut):
            decoder.close()


@pytest.mark.parametrize("payload", [b"no json", b'{"p":1}', b'{"bytes":"!"}', b'{"bytes":"bm8ganNvbg=="}'])
def test_chunks_that_are_none_are_told(payload):
    """What is framed rightly and holds nonsense is a broken answer."""
    decoder = BedrockDecoder(deployment="d")
    decoder.feed(event_message({":message-type": "event", ":event-type": "chunk"}, payload))
    with pytest.raises(BackendBroken):
        decoder.close()


def test_an_exception_has_its_status():
    """AWS's exceptions become the errors that their statuses stand for."""
    decoder = BedrockDecoder(deployment="d")
    decoder.feed(bedrock_exception("throttlingException", "slow down"))
    with pytest.raises(BackendRefused, match="slow down") as caught:
        decoder.close()
    assert (caught.value.status, caught.value.retryable) == (429, True)


def test_bodies_for_hosts_have_no_model():
    """The model is in the URL, the version in the body; Bedrock has the form in its URL too."""
    body = b'{"model":"claude","stream":true,"max_tokens":5,"messages":[]}'
    assert json.loads(hosted_body(body, version="v", stream_in_url=False)) == {
        "stream": True,
        "max_tokens": 5,
        "messages": [],
        "anthropic_version": "v",
    }
    assert "stream" not in json.loads(hosted_body(body, version="v", stream_in_url=True))


def test_only_roles_change_where_developer_is_not_known():
    """A developer's message is the system's, byte for byte; a text that says "developer" stays."""
    body = b'{"messages":[{"role":"developer","content":"a  \\"developer\\""},{"role":"user","content":"developer"}]}'
    found = without_developer(body)
    assert found == body.replace(b'"role":"developer"', b'"role":"system"')
    assert without_developer(b'{"messages": []}') == b'{"messages": []}'
