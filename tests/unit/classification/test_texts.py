import json

import pytest

from gateway.classification.texts import texts_of
from gateway.wire.openai_chat import decode_request

PLAIN = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}


def read(**fields):
    """The texts of a chat request with these fields."""
    return texts_of(decode_request(json.dumps({**PLAIN, **fields}).encode()))


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "FIND"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "FIND"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "note": "FIND"}]}]},
        {"messages": [{"role": "user", "name": "FIND", "content": "a"}]},
        {"messages": [{"role": "assistant", "reasoning_content": "FIND", "content": "a"}]},
        {"messages": [{"role": "assistant", "content": None, "refusal": "FIND"}]},
        {"messages": [{"role": "tool", "tool_call_id": "c", "content": "FIND"}]},
        {"messages": [{"role": "tool", "tool_call_id": "FIND", "content": "a"}]},
        {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"to": "FIND"}'}}
                    ],
                }
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/?u=FIND"}}]}]},
        {"tools": [{"type": "function", "function": {"name": "f", "description": "FIND", "parameters": {}}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"FIND": {}}}}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["FIND"]}}}},
        {"user": "FIND"},
        {"metadata": {"note": "FIND"}},
        {"stop": ["FIND"]},
        {"prediction": {"type": "content", "content": "FIND"}},
        {"unknown": [[[{"deep": "FIND"}]]]},
    ],
)
def test_all_text_that_a_backend_gets(fields):
    """Wherever text stands in a request, it is read."""
    assert any("FIND" in text for text in read(**fields).texts)


def test_parts_are_read_joined_as_well():
    """What is cut between two parts is whole again for a model, so it is read whole."""
    parts = [{"type": "text", "text": "4111 1111"}, {"type": "text", "text": " 1111 1111"}]
    texts = read(messages=[{"role": "user", "content": parts}]).texts
    assert "4111 1111 1111 1111" in texts
    assert "4111 1111" in texts


def test_numbers_are_read():
    """A number of JSON is text for a model; small ones are nobody's."""
    texts = read(extra={"card": 4111111111111111, "year": 2024, "ok": True, "as float": 4111111111111111.0}).texts
    assert texts.count("4111111111111111") == 2
    assert "2024" not in texts


@pytest.mark.parametrize("number", [6304000000000000123, -6304000000000000123, int("9" * 400), 1e300])
def test_numbers_are_read_digit_by_digit(number):
    """No digit of a long number is lost, and none is too long."""
    assert str(int(number)) in read(extra=number).texts


def test_data_of_images_is_not_read_and_is_said():
    """Base64 is no text: it is not read, and the request is known not to be read whole."""
    url = "data:image/png;base64," + "iVBORw0KGgo" * 1_000
    found = read(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
    assert found.unread
    assert not any("iVBOR" in text for text in found.texts)
    assert read(file="QUJD" * 1_000).unread
    assert not read().unread
    assert not read(note="a short word " * 1_000).unread


def test_depth_is_no_trouble():
    """A body that is nested as deep as it may be is read."""
    nested = "FIND"
    for _ in range(400):
        nested = [nested]
    assert "FIND" in read(extra=nested).texts


def test_more_texts_than_anybody_reads():
    """Gathering ends somewhere, and what is left out is said."""
    found = read(extra=["a"] * 150_000)
    assert found.unread
    assert len(found.texts) <= 100_000
    assert not read(extra=["a"] * 50_000).unread
