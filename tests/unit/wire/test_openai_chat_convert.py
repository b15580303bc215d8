"""Both forms of an answer, held against the official SDK's own way of adding up a stream."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from gateway.inference.events import Relayed, UsageReported, WholeAnswer
from gateway.wire.openai_chat import StreamDecoder, decode_answer
from gateway.wire.openai_chat_convert import stream_of, whole_of

USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
HEAD = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "m", "system_fingerprint": "fp", "service_tier": None}
LOGPROB = {"token": "Pa", "logprob": -0.1234567890123, "bytes": [80, 97], "top_logprobs": []}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"q": "é"}'}}


def chunks(*deltas, finish="stop", head=HEAD, usage=USAGE, **choice):
    parts = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **choice} for delta in deltas]
    parts.append({"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish})
    objects = [{**head, "object": "chat.completion.chunk", "choices": [part], "usage": None} for part in parts]
    if usage is not None:
        objects.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    return objects


def decoded(objects):
    """The events that a backend's stream of these chunks gives: one `Relayed`, and the usage."""
    decoder = StreamDecoder(deployment="d")
    events = decoder.feed(b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in objects))
    return events + decoder.close()


def to_whole(objects):
    relayed, *usage = decoded(objects)
    answer = whole_of(relayed.data, usage[0] if usage else None)
    return None if answer is None else json.loads(answer.body)


def added_up(events):
    """What the SDK makes of a stream."""
    state = ChatCompletionStreamState()
    for event in events:
        for line in event.data.decode().split("\n\n"):
            if line:
                state.handle_chunk(ChatCompletionChunk.model_validate_json(line.removeprefix("data: ")))
    return state.get_final_completion().model_dump(exclude_none=True)


STREAMS = {
    "text": chunks({"role": "assistant", "content": ""}, {"content": "Par"}, {"content": "is"}),
    "a call": chunks(
        {"role": "assistant", "content": None},
        {"tool_calls": [{"index": 0, **CALL, "function": {"name": "look", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"q": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"é"}'}}]},
        finish="tool_calls",
    ),
    "two calls that alternate": chunks(
        {"role": "assistant", "content": "Let me see."},
        {"tool_calls": [{"index": 0, **CALL}]},
        {"tool_calls": [{"index": 1, **CALL, "id": "call_2"}]},
        finish="tool_calls",
    ),
    "log-probabilities": chunks(
        {"role": "assistant", "content": "Pa"}, logprobs={"content": [LOGPROB], "refusal": None}
    ),
    "a refusal": chunks({"role": "assistant", "refusal": "No"}, {"refusal": "."}),
}


@pytest.mark.parametrize("objects", STREAMS.values(), ids=STREAMS)
def test_a_stream_as_a_whole_says_what_the_sdk_makes_of_it(objects):
    """Text, calls, refusals, log-probabilities and usage are those that a client would have added up."""
    whole = to_whole(objects)
    expected = added_up(decoded(objects))
    assert whole["usage"] == USAGE
    assert whole["object"] == "chat.completion"
    ours, theirs = whole["choices"][0], expected["choices"][0]
    assert ours["finish_reason"] == theirs["finish_reason"]
    assert (ours["logprobs"] or {}).get("content") == theirs.get("logprobs", {}).get("content")
    for name in ("content", "refusal"):
        assert (ours["message"].get(name) or None) == theirs["message"].get(name)
    calls = [{**call, "function": call["function"]} for call in ours["message"].get("tool_calls", [])]
    for call, other in zip(calls, theirs["message"].get("tool_calls", []), strict=True):
        assert (call["id"], call["function"]["arguments"]) == (other["id"], other["function"]["arguments"])


def test_reasoning_is_kept():
    """What a reasoning model thinks is in both forms."""
    whole = to_whole(chunks({"role": "assistant", "reasoning_content": "Hm"}, {"content": "Yes"}))
    assert whole["choices"][0]["message"]["reasoning_content"] == "Hm"
    (relayed, _) = stream_of(decode_answer(json.dumps(whole).encode(), deployment="d"))
    assert relayed.data.index(b"reasoning_content") < relayed.data.index(b"Yes")


def test_several_choices():
    """Choices that come interleaved are put together each for itself."""
    objects = chunks({"content": "a"}, usage=USAGE)
    other = json.loads(json.dumps(objects[:-1]))
    for chunk in other:
        chunk["choices"][0]["index"] = 1
        chunk["choices"][0]["delta"] = {"content": "b"} if chunk["choices"][0]["delta"] else {}
    mixed = [chunk for pair in zip(objects[:-1], other, strict=True) for chunk in pair]
    decoder = StreamDecoder(deployment="d", n=2)
    data = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in [*mixed, objects[-1]])
    relayed, usage = decoder.feed(data) + decoder.close()
    whole = json.loads(whole_of(relayed.data, usage).body)
    assert [choice["message"]["content"] for choice in whole["choices"]] == ["a", "b"]


ONE_FORM_ONLY = {
    "an unknown member of a delta": chunks({"content": "a", "audio": {"data": "AAAA"}}),
    "an unknown member of a chunk": chunks({"content": "a"}, head=HEAD | {"citations": ["x"]}),
    "an unknown list beside a delta": chunks({"content": "a"}, token_ids=[1]),
    "parts of content": chunks({"content": [{"type": "text", "text": "a"}]}),
    "no usage": chunks({"content": "a"}, usage=None),
    "calls without an id": chunks({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
    "another model in mid-stream": [
        *chunks({"content": "a"})[:1],
        *chunks({"content": "b"}, head=HEAD | {"model": "n"}),
    ],
}


@pytest.mark.parametrize("objects", ONE_FORM_ONLY.values(), ids=ONE_FORM_ONLY)
def test_what_cannot_be_said_whole_stays_a_stream(objects):
    """Rather no conversion than one that loses or invents something."""
    assert to_whole(objects) is None


def test_padding_is_left_out():
    """OpenAI's `obfuscation` is no part of the answer."""
    assert to_whole(chunks({"content": "a"}, head=HEAD | {"obfuscation": "xyz"})) is not None


def whole_body(message, *, finish="stop", **more):
    choice = {"index": 0, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": finish}
    return {**HEAD, "object": "chat.completion", "choices": [choice | more.pop("choice", {})], "usage": USAGE, **more}


WHOLE_ONLY = {
    "audio": whole_body({"content": None, "audio": {"id": "a", "data": "AAAA"}}),
    "annotations": whole_body({"content": "a", "annotations": [{"type": "url_citation"}]}),
    "an unknown member": whole_body({"content": "a"}, citations=["x"]),
    "usage that is none": whole_body({"content": "a"}) | {"usage": {"tokens": 3}},
}


@pytest.mark.parametrize("body", WHOLE_ONLY.values(), ids=WHOLE_ONLY)
def test_what_cannot_be_streamed_stays_whole(body):
    """Rather no conversion than one that loses or invents something."""
    assert stream_of(decode_answer(json.dumps(body).encode(), deployment="d")) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices":[7]}', b"\xff", b"[" * 5000])
def test_garbage_is_refused(body):
    """What is no answer has no other form, and raises nothing."""
    assert stream_of(WholeAnswer(body=body, text="", finish_reason="stop")) is None
    assert whole_of(b"data: " + body + b"\n\n", None) is None


texts = st.text(st.characters(codec="utf-8"), max_size=30)
calls = st.lists(
    st.builds(
        lambda number, name, arguments: {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        st.integers(0, 9),
        st.text("abc", min_size=1, max_size=5),
        texts,
    ),
    min_size=1,
    max_size=3,
)
messages = st.fixed_dictionaries(
    {"content": texts.filter(bool)},
    optional={"refusal": texts.filter(bool), "reasoning_content": texts.filter(bool), "tool_calls": calls},
)


@given(messages, st.sampled_from(["stop", "tool_calls"]), st.booleans())
def test_there_and_back_again(message, finish, logprobs):
    """A whole answer that is streamed and put together again is the same answer."""
    more = {"choice": {"logprobs": {"content": [LOGPROB], "refusal": None}}} if logprobs else {}
    body = whole_body(message, finish=finish, **more)
    answer = decode_answer(json.dumps(body).encode(), deployment="d")
    relayed, usage = stream_of(answer)
    assert isinstance(relayed, Relayed)
    assert isinstance(usage, UsageReported)
    again = msgspec.json.decode(whole_of(relayed.data, usage).body)
    assert again["choices"][0]["message"] == {"refusal": None, "role": "assistant", **message}
    assert again["choices"][0]["logprobs"] == body["choices"][0]["logprobs"]
    assert {name: again[name] for name in ("id", "model", "created", "usage")} == {
        name: body[name] for name in ("id", "model", "created", "usage")
    }
    added_up([relayed, usage])


@given(st.lists(st.integers(1, 200), max_size=12))
def test_any_split_of_a_stream_gives_the_same_whole(cuts):
    """How the reads fell changes nothing: neither in the stream that is replayed, nor in the whole."""
    data = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in STREAMS["two calls that alternate"])
    decoder, events, start = StreamDecoder(deployment="d"), [], 0
    for cut in [*cuts, len(data)]:
        events += decoder.feed(data[start : start + cut])
        start += cut
    events += decoder.feed(data[start:]) + decoder.close()
    *relayed, usage = events
    joined = b"".join(event.data for event in relayed)
    once = decoded(STREAMS["two calls that alternate"])
    assert joined == once[0].data
    assert whole_of(joined, usage).body == whole_of(once[0].data, once[1]).body
