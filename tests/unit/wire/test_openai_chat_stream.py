"""A backend's stream to events."""

import json

import pytest

from gateway.errors import BackendBroken, BackendCut, BackendRefused
from gateway.inference.events import Relayed, UsageReported
from gateway.inference.usage import Usage
from gateway.wire.openai_chat import StreamDecoder
from tests.unit.wire.streams import chunk

HI = chunk({"content": "hi"})
STOP = chunk({}, "stop")
DONE = b"data: [DONE]\n\n"
USAGE = (
    b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13,'
    b'"prompt_tokens_details":{"cached_tokens":3},"completion_tokens_details":{"reasoning_tokens":2}}}\n\n'
)
REPORTED = Usage(input_tokens=9, output_tokens=4, cached_input_tokens=3, reasoning_tokens=2)


def decode(*reads, n=1):
    decoder = StreamDecoder(deployment="cloud/m", n=n)
    events = []
    for read in reads:
        events += decoder.feed(read)
        if decoder.ended:
            break
    return events + decoder.close()


def relayed(events):
    return b"".join(event.data for event in events if isinstance(event, Relayed))


# --- what is relayed --------------------------------------------------------------------------------------------


def test_read_of_plain_events_is_passed_as_it_came():
    """A read of whole ordinary events becomes one Relayed, with the very bytes of the read."""
    read = HI + chunk({"content": " there"}) + STOP
    events = decode(read, DONE)
    assert events == [Relayed(data=read, text="hi there", content=True, content_bytes=8, finish_reason="stop")]
    assert events[0].data is read


def test_one_event_a_read():
    """Each read has its own Relayed; one that completes no event has none."""
    decoder = StreamDecoder(deployment="d")
    assert decoder.feed(HI[:20]) == []
    assert decoder.feed(HI[20:] + HI[:5]) == [Relayed(data=HI, text="hi", content=True, content_bytes=2)]
    assert relayed(decoder.feed(HI[5:])) == HI


def test_end_mark_is_kept_back_and_ends_the_stream():
    """`[DONE]` is not passed on, and nothing after it is read."""
    decoder = StreamDecoder(deployment="d")
    assert relayed(decoder.feed(HI + STOP + DONE + b"data: {garbage\n\n")) == HI + STOP
    assert decoder.ended
    assert decoder.feed(HI) == []
    assert decoder.close() == []


def test_event_with_more_than_data_lines_is_framed_anew():
    """Comments, names, ids and other line ends are not passed on; the JSON is, in one line."""
    odd = b": comment\nevent: message\nid: 7\nretry: 5\n" + HI.replace(b"\n\n", b"\r\n\r\n")
    assert relayed(decode(odd, STOP, DONE)) == HI + STOP


def test_json_over_several_lines_becomes_one():
    """An event whose JSON is spread over `data` lines goes out in one line, with the same value."""
    value = json.loads(HI[6:])
    spread = b"".join(b"data: " + line.encode() + b"\n" for line in json.dumps(value, indent=1).split("\n")) + b"\n"
    data = relayed(decode(spread, STOP, DONE))
    assert data.count(b"\n") == 4
    assert json.loads(data.split(b"\n")[0][6:]) == value


def test_event_without_choices_is_dropped():
    """Events without choices break `chunk.choices[0]` loops; Azure begins with one."""
    first = b'data: {"id":"","object":"","choices":[],"prompt_filter_results":[{}]}\n\n'
    assert relayed(decode(first + HI, STOP, b'data: {"id":"x"}\n\n', DONE)) == HI + STOP


def test_unknown_members_are_passed():
    """What the gateway does not know is in the bytes."""
    odd = chunk({"content": "hi", "new": [1]}, system_fingerprint="fp", timings={"a": 1})
    assert relayed(decode(odd, STOP, DONE)) == odd + STOP


@pytest.mark.parametrize(
    ("delta", "size"),
    [
        ({"role": "assistant"}, 0),
        ({"content": ""}, 0),
        ({"content": None}, 0),
        ({"content": "é"}, 2),
        ({"reasoning_content": "abc"}, 3),
        ({"reasoning": "abc", "reasoning_content": "abc"}, 3),
        ({"refusal": "no"}, 2),
        ({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}, 3),
        ({"tool_calls": [{"index": 0, "function": {"arguments": {"a": 1}}}]}, 7),
        ({"function_call": {"name": "f", "arguments": None}}, 1),
        ({"audio": {"data": "AAAA"}}, 15),
        ({"content": [{"type": "text", "text": "x"}]}, 28),
    ],
)
def test_content_of_every_kind_counts(delta, size):
    """Text, reasoning, refusals, calls and audio are content; a role, an empty text are not."""
    event = decode(chunk(delta), STOP, DONE)[0]
    assert (event.content, event.content_bytes) == (size > 0, size)


def test_text_is_of_the_first_choice_alone():
    """With several choices, the text is choice 0's and the bytes are everybody's."""
    both = b'data: {"choices":[{"index":1,"delta":{"content":"b"}},{"index":0,"delta":{"content":"a"}}]}\n\n'
    ends = (
        b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"index":1,"finish_reason":"length"}]}\n\n',
    )
    events = decode(both, *ends, DONE, n=2)
    assert (events[0].text, events[0].content_bytes) == ("a", 2)
    assert [event.finish_reason for event in events] == [None, None, "length"]


def test_finish_reason_is_told_once():
    """A backend that repeats the finish reason ends the answer once."""
    events = decode(HI, STOP, STOP, DONE)
    assert [event.finish_reason for event in events] == [None, "stop", None]


# --- usage ------------------------------------------------------------------------------------------------------


def test_usage_event_is_split_off():
    """The usage-only event is reported at the end, with its bytes, and not relayed."""
    events = decode(HI + STOP + USAGE + DONE)
    assert events == [
        Relayed(data=HI + STOP, text="hi", content=True, content_bytes=2, finish_reason="stop"),
        UsageReported(REPORTED, USAGE),
    ]


def test_usage_on_the_finish_chunk_stays_there():
    """Usage that rides on a chunk is reported without bytes of its own, and the chunk passes as it is."""
    last = chunk({}, "stop", usage={"prompt_tokens": 9, "completion_tokens": 4})
    events = decode(HI, last, DONE)
    assert relayed(events) == HI + last
    assert events[-1] == UsageReported(Usage(input_tokens=9, output_tokens=4))


def test_repeated_usage_is_reported_once():
    """Of usage on every chunk, the last is what counts."""
    chunks = [chunk({"content": "x"}, usage={"prompt_tokens": 9, "completion_tokens": i}) for i in range(1, 4)]
    events = decode(*chunks, STOP, DONE)
    assert [event.usage.output_tokens for event in events if isinstance(event, UsageReported)] == [3]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ([], None),
        ({"prompt_tokens": 1, "completion_tokens": None}, None),
        ({"prompt_tokens": -1, "completion_tokens": 1}, None),
        ({"prompt_tokens": 1, "completion_tokens": 2**60}, None),
        ({"prompt_tokens": "1", "completion_tokens": 1}, None),
        ({"prompt_tokens": True, "completion_tokens": 1}, None),
        ({"prompt_tokens": 2.0, "completion_tokens": 1}, Usage(input_tokens=2, output_tokens=1)),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}},
            Usage(input_tokens=5, output_tokens=1, cached_input_tokens=5),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "prompt_cache_hit_tokens": 4},
            Usage(input_tokens=5, output_tokens=1, cached_input_tokens=4),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 16, "completion_tokens_details": None},
            Usage(input_tokens=5, output_tokens=11),
        ),
    ],
)
def test_usage_is_believed_only_as_far_as_it_makes_sense(usage, expected):
    """Usage that cannot be is no usage; tokens that stand in the total alone are counted."""
    events = decode(HI, chunk({}, "stop", usage=usage), DONE)
    found = [event.usage for event in events if isinstance(event, UsageReported)]
    assert found == ([] if expected is None else [expected])


# --- ends -------------------------------------------------------------------------------------------------------


def test_end_without_the_end_mark():
    """A stream that has its finish reason is complete without `[DONE]`."""
    assert relayed(decode(HI, STOP)) == HI + STOP


def test_last_event_without_its_empty_line():
    """A last event that only lacks the empty line counts."""
    assert relayed(decode(HI, STOP[:-1])) == HI + STOP
    assert relayed(decode(HI, STOP[:-2])) == HI + STOP


@pytest.mark.parametrize(
    "reads",
    [
        [],
        [b""],
        [DONE],
        [b": comment\n\n"],
        [chunk({"role": "assistant"})],
        [HI],
        [HI, DONE],
        [HI, USAGE, DONE],
        [HI, STOP[:30]],
        [HI, b"data: {"],
    ],
)
def test_end_before_the_answer_is_complete(reads):
    """Whatever ends before a finish reason is cut, with or without `[DONE]`."""
    with pytest.raises(BackendCut):
        decode(*reads)


def test_end_before_all_choices_are_complete():
    """With `n`, one finished choice is not the answer, unless the backend says that there are no more."""
    with pytest.raises(BackendCut):
        decode(HI, STOP, n=2)
    with pytest.raises(BackendCut):
        decode(HI, STOP, b'data: {"choices":[{"index":1,"delta":{"content":"x"}}]}\n\n', DONE, n=2)
    assert relayed(decode(HI, STOP, DONE, n=2)) == HI + STOP


# --- failures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b"{garbage",
        b'{"choices":',
        b"null",
        b"[]",
        b'"x"',
        b"12",
        b"DONE",
        b'{"choices":{}}',
        b'{"choices":[1]}',
        b'{"choices":[{"index":-1}]}',
        b'{"choices":[{"index":128}]}',
        b'{"choices":[{"index":0,"delta":"x"}]}',
        b'{"choices":[{"index":0,"finish_reason":1}]}',
        b'{"choices":[{"index":0,"delta":{"content":"\xff"}}]}',
        b'{"x":' + b"[" * 100_000,
    ],
)
def test_event_that_cannot_be_read(payload):
    """An event that is no chunk breaks the answer; it is never dropped in silence. What came before it is given out."""
    decoder = StreamDecoder(deployment="cloud/m")
    assert relayed(decoder.feed(HI + b"data: " + payload + b"\n\n")) == HI
    assert decoder.ended
    with pytest.raises(BackendBroken) as caught:
        decoder.feed(HI)
    assert caught.value.deployment == "cloud/m"
    with pytest.raises(BackendBroken):
        decoder.close()


@pytest.mark.parametrize(
    ("event", "status", "body"),
    [
        (
            b'data: {"error":{"message":"no","type":"t","code":429,"x":1}}\n\n',
            429,
            {"message": "no", "type": "t", "param": None, "code": 429, "x": 1},
        ),
        (
            b'data: {"error":"no"}\n\n',
            502,
            {"message": "no", "type": "backend_error", "param": None, "code": None},
        ),
        (
            b'data: {"object":"error","message":"no","code":"400"}\n\n',
            400,
            {"message": "no", "type": "backend_error", "param": None, "code": "400", "object": "error"},
        ),
        (
            b'event: error\ndata: {"message":"no"}\n\n',
            502,
            {"message": "no", "type": "backend_error", "param": None, "code": None},
        ),
        (
            b"event: error\ndata: no\n\n",
            502,
            {"message": "no", "type": "backend_error", "param": None, "code": None},
        ),
        (
            b'data: {"id":"x","choices":[{"index":0,"finish_reason":"error"}],"error":{"code":200,"message":"no"}}\n\n',
            502,
            {"message": "no", "type": "backend_error", "param": None, "code": 200},
        ),
    ],
)
def test_error_in_the_stream(event, status, body):
    """An error object ends the answer with the backend's own error; a numeric code is its status."""
    with pytest.raises(BackendRefused) as caught:
        decode(HI, event)
    assert caught.value.status == status
    assert json.loads(caught.value.body) == {"error": body}


def test_no_error():
    """`error: null` and empty errors are not errors."""
    assert relayed(decode(chunk({"content": "x"}, error=None), chunk({}, "stop", error=""), DONE))


def test_usage_of_a_cut_answer_is_kept():
    """What the backend said it used before it failed can still be read."""
    decoder = StreamDecoder(deployment="d")
    decoder.feed(chunk({"content": "x"}, usage={"prompt_tokens": 9, "completion_tokens": 1}))
    with pytest.raises(BackendCut):
        decoder.close()
    assert decoder.usage == Usage(input_tokens=9, output_tokens=1)
