"""A backend's whole answer."""

import json

import pytest

from gateway.errors import BackendBroken, BackendCut, BackendRefused
from gateway.inference.events import WholeAnswer
from gateway.inference.usage import Usage
from gateway.wire.openai_chat import decode_answer


def body(*choices, **more):
    return json.dumps({"id": "x", "object": "chat.completion", "choices": list(choices), **more}).encode()


def choice(index=0, finish="stop", **message):
    return {"index": index, "message": {"role": "assistant", **message}, "finish_reason": finish}


def test_answer_is_read():
    """The text, finish reason and usage are read; the body stays byte for byte."""
    data = body(choice(content="hi"), usage={"prompt_tokens": 3, "completion_tokens": 1}, new=[1.0])
    usage = Usage(input_tokens=3, output_tokens=1)
    assert decode_answer(data, deployment="d") == WholeAnswer(body=data, text="hi", finish_reason="stop", usage=usage)


def test_first_choice_counts():
    """Of several choices, the text and reason are choice 0's, in whatever order they come."""
    found = decode_answer(body(choice(1, content="b", finish="length"), choice(0, content="a")), deployment="d")
    assert (found.text, found.finish_reason, found.usage) == ("a", "stop", None)


def test_answer_without_text():
    """An answer that only calls tools has no text and is whole."""
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    found = decode_answer(body(choice(content=None, tool_calls=calls, finish="tool_calls")), deployment="d")
    assert (found.text, found.finish_reason) == ("", "tool_calls")


def test_text_in_parts():
    """Content in parts gives the text of those that have some."""
    parts = [{"type": "thinking", "thinking": [{"text": "hm"}]}, {"type": "text", "text": "a"}, {"text": "b"}]
    assert decode_answer(body(choice(content=parts)), deployment="d").text == "ab"


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"  ", b"<html>", b'{"choices":[{"index":0,"mess', b"[]", b"null", b"{}", b'{"choices":null}'),
        *(b'{"choices":[]}', b'{"choices":[{"index":0,"finish_reason":"stop"}]}', b'{"choices":"x"}'),
        *(b'{"choices":[{"message":{"content":"\xff"},"finish_reason":"stop"}]}', b"[" * 100_000),
    ],
)
def test_what_is_no_answer(data):
    """HTML, nothing, half an answer and answers without a message are broken, never an empty answer."""
    with pytest.raises(BackendBroken):
        decode_answer(data, deployment="d")


def test_answer_without_a_finish_reason():
    """An answer whose choices are not all finished was cut."""
    with pytest.raises(BackendCut):
        decode_answer(body(choice(content="a"), choice(1, content="b", finish=None)), deployment="d")


def test_error_with_status_200():
    """An error object is an error, whatever the status was."""
    with pytest.raises(BackendRefused) as caught:
        decode_answer(b'{"error":{"message":"no","code":503}}', deployment="d")
    assert caught.value.status == 503
