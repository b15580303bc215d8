"""A stream that is kept and replayed says what it said, however the network split it."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.entry import Entry, EntryCodec, is_complete, merged
from gateway.cache.forms import in_form
from gateway.inference.events import Relayed, UsageReported, WholeAnswer
from gateway.wire.openai_chat import StreamDecoder
from tests.property.test_wire import TEXT, _chunk, _split

USAGE = b'{"id":"x","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}'


@st.composite
def answers(draw):
    """The bytes of a complete streamed answer."""
    texts = draw(st.lists(TEXT, min_size=1, max_size=8))
    payloads = [_chunk(text, None, draw(st.booleans())) for text in texts]
    payloads.append(_chunk("", "stop", spaced=False))
    if draw(st.booleans()):
        payloads.append(USAGE)
    return "".join(texts), b"".join(b"data: " + payload + b"\n\n" for payload in [*payloads, b"[DONE]"])


def _kept(reads):
    """What the cache has of these reads, after a way through the store."""
    decoder = StreamDecoder(deployment="d")
    events = [event for read in reads for event in decoder.feed(read)]
    kept = merged([*events, *decoder.close()])
    assert is_complete(kept)
    codec = EntryCodec(1_000_000, None)
    return codec.decode(codec.encode(Entry(0.0, 60.0, 0.0, 5, "chat", kept), "name"), "name")


def _replayed(entry):
    """What a client that streams, and one that does not, would see of it."""
    stream, whole = in_form(entry, stream=True), in_form(entry, stream=False)
    relayed = [event for event in stream if isinstance(event, Relayed)]
    return (
        b"".join(event.data for event in relayed),
        "".join(event.text for event in relayed),
        [event.finish_reason for event in relayed if event.finish_reason],
        [event for event in stream if isinstance(event, UsageReported)],
        [event for event in whole or [] if isinstance(event, WholeAnswer)],
        entry.usage,
    )


@settings(max_examples=200, deadline=None)
@given(answers(), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_of_a_cached_stream_replays_alike(answer, cuts):
    """The replay depends on what the backend said, not on how its bytes came: streamed, whole, and for the books."""
    text, stream = answer
    once, split = _replayed(_kept([stream])), _replayed(_kept(_split(stream, cuts)))
    assert once == split
    assert once[1] == text
    if text and USAGE in stream:  # else it is kept in its own form only
        (whole,) = once[4]
        assert msgspec.json.decode(whole.body)["choices"][0]["message"]["content"] == text
