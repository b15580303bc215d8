"""Framing of event streams."""

import pytest

from gateway.wire.sse import ServerEvent, SSEDecoder, frame


def decode(*reads, max_event_bytes=1000):
    decoder = SSEDecoder(max_event_bytes=max_event_bytes)
    events = [event for read in reads for event in decoder.feed(read)]
    return events + decoder.close()


CASES = {
    "one event": (b"data: a\n\n", [ServerEvent(b"a")]),
    "two events": (b"data: a\n\ndata: b\n\n", [ServerEvent(b"a"), ServerEvent(b"b")]),
    "crlf": (b"data: a\r\n\r\ndata: b\r\n\r\n", [ServerEvent(b"a"), ServerEvent(b"b")]),
    "cr": (b"data: a\r\rdata: b\r\r", [ServerEvent(b"a"), ServerEvent(b"b")]),
    "mixed line ends": (b"data: a\r\ndata: b\r\n\ndata: c\n\r", [ServerEvent(b"a\nb"), ServerEvent(b"c")]),
    "bom": (b"\xef\xbb\xbfdata: a\n\n", [ServerEvent(b"a")]),
    "bom later is data": (b"data: \xef\xbb\xbfa\n\n", [ServerEvent(b"\xef\xbb\xbfa")]),
    "comment": (b": hello\n\ndata: a\n:\n\n", [ServerEvent(b"a")]),
    "multi-line data": (b"data: a\ndata: b\n\n", [ServerEvent(b"a\nb")]),
    "no space": (b"data:a\n\n", [ServerEvent(b"a")]),
    "two spaces": (b"data:  a\n\n", [ServerEvent(b" a")]),
    "name": (b"event: error\ndata: a\n\ndata: b\n\n", [ServerEvent(b"a", b"error"), ServerEvent(b"b")]),
    "name without data": (b"event: ping\n\ndata: a\n\n", [ServerEvent(b"a")]),
    "id and retry": (b"id: 1\nretry: 5\ndata: a\n\n", [ServerEvent(b"a")]),
    "empty data": (b"data\n\ndata:\n\n", [ServerEvent(b""), ServerEvent(b"")]),
    "no last line end": (b"data: a\n\ndata: b", [ServerEvent(b"a"), ServerEvent(b"b")]),
    "no last empty line": (b"data: a\n", [ServerEvent(b"a")]),
    "empty": (b"", []),
    "colon in data": (b"data: a: b\n\n", [ServerEvent(b"a: b")]),
}


@pytest.mark.parametrize("name", CASES)
def test_stream_in_one_read(name):
    """A stream gives the events that WHATWG's grammar says."""
    data, expected = CASES[name]
    assert decode(data) == expected


@pytest.mark.parametrize("name", CASES)
def test_stream_byte_for_byte(name):
    """A stream that comes byte by byte gives the same events."""
    data, expected = CASES[name]
    assert decode(*(bytes([byte]) for byte in data)) == expected


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("data", [b"data: " + b"x" * 2000 + b"\n\n", b"data: abc\n" * 200 + b"\n", b"x" * 2000])
def test_event_over_the_limit(data, step):
    """However it is split, an event over the limit is lost with all after it, and what came before is given out."""
    decoder = SSEDecoder(max_event_bytes=1000)
    stream = b"data: before\n\n" + data + b"data: after\n\n"
    reads = [stream[start : start + step] for start in range(0, len(stream), step)]
    events = [event for read in reads for event in decoder.feed(read)]
    assert events == [ServerEvent(b"before")]
    assert decoder.overflowed
    assert decoder.close() == []


def test_flood_of_empty_data_lines_is_bounded():
    """Lines without bytes cost memory as well, and count."""
    decoder = SSEDecoder(max_event_bytes=1000)
    decoder.feed(b"data:\n" * 1000)
    assert decoder.overflowed


def test_long_stream_of_comments_is_no_event():
    """Comments never add up, however many come without an empty line."""
    assert decode(*([b": keepalive\n"] * 500), b"data: a\n\n") == [ServerEvent(b"a")]


@pytest.mark.parametrize(
    ("data", "payloads"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: \n\n", [b""]),
    ],
)
def test_plain_read_is_taken_apart_at_once(data, payloads):
    """A read of whole `data: …` events needs no line by line reading."""
    assert SSEDecoder().plain_payloads(data) == payloads


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"\n\n",
            b"data: a\n",
            b"data: a",
            b": c\n\n",
            b"data:a\n\n",
            b"data: a\r\n\r\n",
            b"data: a\ndata: b\n\n",
        ),
        *(b"event: x\ndata: a\n\n", b"data: a\n\n\n\n", b"data: a\n\n: c\n\n", b"data: a\n\ndata: b\nid: 1\n\n"),
    ],
)
def test_other_reads_are_not_plain(data):
    """Anything else is left to the line by line reading."""
    assert SSEDecoder().plain_payloads(data) is None


def test_nothing_is_plain_while_something_is_held():
    """A read that looks plain but continues an event is not."""
    decoder = SSEDecoder()
    decoder.feed(b"event: x\n")
    assert decoder.plain_payloads(b"data: a\n\n") is None
    assert decoder.feed(b"data: a\n\n") == [ServerEvent(b"a", b"x")]
    assert decoder.plain_payloads(b"data: b\n\n") == [b"b"]


def test_frame_is_read_back():
    """What `frame` writes is a plain event."""
    assert SSEDecoder().plain_payloads(frame(b"{}")) == [b"{}"]
