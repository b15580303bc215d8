"""What clients get: streams, whole answers, models."""

import json

import pytest

from gateway.errors import BackendRefused, InternalError
from gateway.inference.events import (
    DraftState,
    Finished,
    Relayed,
    TextDelta,
    UsageReported,
    WholeAnswer,
)
from gateway.inference.request import DraftWish
from gateway.wire.openai_chat import AnswerEncoder, encode_models
from tests.unit.wire.streams import (
    DRAFT,
    EDGE,
    FINISH,
    FOLDER,
    RELAYED,
    REPORTED,
    STREAMS,
    USAGE,
    chunk,
    encoded_stream,
    encoder,
    judged,
    request,
)

FORBIDDEN_KEYS = {"event", "error", "chunk", "type", "timings"}


def payloads(stream):
    """The JSON of each event, as a client that knows nothing but `data:` lines reads it."""
    events = [event for event in stream.split(b"\n\n") if event.startswith(b"data: {")]
    return [json.loads(event[6:]) for event in events]


@pytest.mark.parametrize("name", STREAMS)
def test_stream_is_golden(name):
    """The bytes of each situation are exactly those of its golden file."""
    assert encoded_stream(name) == (FOLDER / f"{name}.sse").read_bytes()


@pytest.mark.parametrize("name", [name for name in STREAMS if "error" not in name])
def test_nothing_that_breaks_an_sdk(name):
    """No stream has an event name, an id, a retry line, an event without data, or a forbidden key; usage comes last."""
    stream = encoded_stream(name)
    assert stream.endswith(b"data: [DONE]\n\n")
    lines = [line for line in stream.split(b"\n") if line]
    assert all(line.startswith((b"data: ", b": ")) for line in lines)
    found = payloads(stream)
    for place, payload in enumerate(found):
        assert not FORBIDDEN_KEYS & payload.keys()
        assert payload["choices"] or ("usage" in payload and place == len(found) - 1)
        for choice in payload["choices"]:
            assert choice["index"] == 0
            assert choice["delta"].keys() <= {"role", "content", "reasoning_content"}


@pytest.mark.parametrize("name", STREAMS)
def test_role_is_sent_once_and_one_id(name):
    """The role stands in the first chunk of the final alone, and all chunks of an answer have one id."""
    found = [payload for payload in payloads(encoded_stream(name)) if "error" not in payload]
    assert sum("role" in choice["delta"] for payload in found for choice in payload["choices"]) == 1
    assert len({payload["id"] for payload in found}) == 1


@pytest.mark.parametrize("name", ["frames_confirmed", "frames_promoted"])
def test_naive_client_gets_the_final_alone(name):
    """A client that adds up `choices[0].delta.content` has the final; one that adds up `draft.text` has the draft."""
    found = payloads(encoded_stream(name))
    texts = [payload["choices"][0]["delta"].get("content") or "" for payload in found if payload["choices"]]
    drafts = [payload["draft"] for payload in found if "draft" in payload]
    assert "".join(texts) == "The answer"
    assert "".join(draft["text"] for draft in drafts) == "The answer"
    assert [draft["seq"] for draft in drafts] == list(range(len(drafts)))
    assert [draft["state"] for draft in drafts][:3] == ["partial", "partial", "complete"]


def test_relayed_bytes_are_untouched_without_drafts():
    """A client that sees no draft gets the backend's bytes, the very object, copied nowhere."""
    writer = encoder()
    for event in (*RELAYED, FINISH):
        assert writer.encode(event) is event.data


def test_drafts_that_are_off_leave_no_trace():
    """With drafts off, draft events give no bytes and change nothing of what follows."""
    assert encoded_stream("off") == encoded_stream("relayed")


def test_id_in_a_text_is_not_replaced():
    """Only members named `id` get the gateway's id, not a text that looks like one."""
    writer = encoder(DraftWish.FRAMES)
    writer.encode(DRAFT[0])
    text = 'say "id":"chatcmpl-theirs" twice'
    sent = writer.encode(Relayed(data=chunk({"content": text})))
    payload = json.loads(sent[6:])
    assert payload["id"] == "chatcmpl-7"
    assert payload["choices"][0]["delta"]["content"] == text


@pytest.mark.parametrize("theirs", [b'"id" : "b1",', b'"id":"a\\u002fb",', b'"id":null,', b'"id":7,', b""])
def test_one_id_however_the_backend_writes_its_own(theirs):
    """After a draft frame, all chunks have the gateway's id, whatever the backend's looks like, or if it changes."""
    writer = encoder(DraftWish.FRAMES)
    writer.encode(DRAFT[0])
    for number in (b"1", b"2"):
        event = b"data: {" + theirs.replace(b"b1", b"b" + number) + b'"x":{"id":"y"},"choices":[{"index":0}]}\n\n'
        sent = writer.encode(Relayed(data=event * 2))
        assert [json.loads(part[6:]) for part in sent.split(b"\n\n")[:-1]] == [
            {"id": "chatcmpl-7", "x": {"id": "y"}, "choices": [{"index": 0}]}
        ] * 2


def test_error_body_of_several_lines_is_one_event():
    """A backend's error over several lines goes out as one `data` line."""
    sent = encoder().error(BackendRefused("x", status=500, body=b'{\n "error": {\r\n "message": "x" }\n}'), "req-1")
    assert sent == b'data: {"error":{"message":"x"}}\n\n'


def test_whole_answer_is_not_for_streams():
    """A whole answer for a streamed request is a fault of ours, not something for a client."""
    with pytest.raises(InternalError):
        encoder().encode(WholeAnswer(body=b"{}", text="", finish_reason="stop"))


# --- not streamed -----------------------------------------------------------------------------------------------


def answer(events, wish=DraftWish.OFF):
    writer = AnswerEncoder(request=request(), response_id="chatcmpl-7", created=1, model="large", wish=wish)
    for event in events:
        writer.add(event)
    return writer.body()


WHOLE = WholeAnswer(body=b'{ "id" : "x", "choices":[ 1.0 ], "new":{"a": 1} }', text="The answer", finish_reason="stop")


def test_backends_body_passes_unchanged():
    """Without a draft to show, a backend's body is passed byte for byte."""
    assert answer([*DRAFT, judged(DraftState.REVISED, 0.5), WHOLE]) == WHOLE.body
    assert answer([WHOLE], DraftWish.FRAMES) == WHOLE.body
    assert answer([*DRAFT, judged(DraftState.REVISED, 0.5), WHOLE], DraftWish.REASONING) == WHOLE.body


def test_draft_object_of_a_whole_answer():
    """With `frames`, the body has the draft with its full text and verdict; its other members stay as they were."""
    sent = answer([*DRAFT, judged(DraftState.REVISED, 0.5), WHOLE], DraftWish.FRAMES)
    assert sent.startswith(b'{"id":"x","choices":[ 1.0 ],"new":{"a": 1},"draft":')
    assert json.loads(sent)["draft"] == {
        "text": "The answer",
        "state": "revised",
        "model": "smollm2-135m-instruct",
        "confidence": 0.75,
        "ttft_s": 0.091235,
        "tokens": 2,
        "similarity": 0.5,
    }


def test_answer_of_the_edge():
    """Text from a producer without a schema becomes a chat completion, with usage."""
    assert json.loads(answer(EDGE)) == {
        "id": "chatcmpl-7",
        "object": "chat.completion",
        "created": 1,
        "model": "large",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The answer", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "total_tokens": 13,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    }


def test_unfinished_answer_is_no_answer():
    """Without a finish reason there is no body to send."""
    with pytest.raises(InternalError):
        answer([TextDelta("half")])


def test_stream_events_are_not_for_whole_answers():
    """Relayed events for a request that is not streamed are a fault of ours."""
    with pytest.raises(InternalError):
        answer([RELAYED[0], Finished("stop"), REPORTED, UsageReported(USAGE)])


def test_models():
    """The list of models is OpenAI's."""
    assert json.loads(encode_models(["large", "small"], 5)) == {
        "object": "list",
        "data": [
            {"id": "large", "object": "model", "created": 5, "owned_by": "firstdraft"},
            {"id": "small", "object": "model", "created": 5, "owned_by": "firstdraft"},
        ],
    }
