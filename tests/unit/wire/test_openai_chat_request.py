"""Client bodies to canonical requests, and those to backend bodies."""

import json
from pathlib import Path

import msgspec
import pytest

from gateway.errors import InvalidRequest
from gateway.inference.deployment import FREE, Backend, Deployment
from gateway.inference.request import DraftWish, Message, Sampling
from gateway.inference.servers import Server
from gateway.wire.openai_chat import decode_request, encode_request

GOLDEN = Path(__file__).parent / "golden"
HELLO = [{"role": "user", "content": "hello"}]
DEPLOYMENT = Deployment(
    id="cloud/m", backend=Backend(name="cloud", type="openai", region="eu"), model="vendor/m", price=FREE
)
NEWER = msgspec.structs.replace(
    DEPLOYMENT,
    backend=msgspec.structs.replace(DEPLOYMENT.backend, server=Server(max_tokens_field="max_completion_tokens")),
)


def request(**fields):
    return decode_request(json.dumps({"model": "large", "messages": HELLO, **fields}).encode())


def encoded(deployment=DEPLOYMENT, *, max_tokens=None, **fields):
    return json.loads(encode_request(request(**fields), deployment, max_tokens=max_tokens))


def test_plain_request():
    """The least a body has gives a request with all defaults."""
    found = request()
    assert (found.model, found.messages, found.stream, found.n) == ("large", (Message("user", "hello"),), False, 1)
    assert (found.max_tokens, found.max_tokens_field, found.draft) == (None, None, None)
    assert not any((found.tools, found.json_output, found.images, found.audio, found.logprobs))


def test_null_is_not_given():
    """SDKs send null for what was not set: it means the default, everywhere."""
    names = "stream stream_options max_tokens max_completion_tokens n temperature top_p seed stop tools metadata draft"
    found = request(**dict.fromkeys(names.split()), response_format=None, logprobs=None, functions=None)
    assert found.sampling == Sampling()
    assert (found.n, found.max_tokens, found.metadata, found.draft) == (1, None, {}, None)


def test_sampling_is_read():
    """Sampling settings are read as they are, a single stop as a list of one."""
    found = request(temperature=1, top_p=0.5, seed=-3, stop="a", presence_penalty=-2, frequency_penalty=2).sampling
    expected = Sampling(temperature=1.0, top_p=0.5, seed=-3, stop=("a",), presence_penalty=-2, frequency_penalty=2)
    assert found == expected
    assert request(stop=["a", "b"]).sampling.stop == ("a", "b")


def test_flags_are_read():
    """Tools, JSON output, log-probabilities and usage are noticed in all the ways that clients ask for them."""
    assert request(tools=[{"type": "function", "function": {"name": "f"}}]).tools
    assert request(functions=[{"name": "f"}]).tools
    assert not request(tools=[]).tools
    assert request(response_format={"type": "json_object"}).json_output
    assert request(response_format={"type": "json_schema", "json_schema": {}}).json_output
    assert request(guided_json={"type": "object"}).json_output
    assert not request(response_format={"type": "text"}).json_output
    assert request(logprobs=True).logprobs
    assert request(top_logprobs=3).logprobs
    assert not request(logprobs=False).logprobs
    assert request(stream=True, stream_options={"include_usage": True}).include_usage
    assert request(metadata={"feature": "chat"}).metadata == {"feature": "chat"}


def test_newer_limit_field_is_preferred():
    """`max_completion_tokens` holds where both are given, and it is remembered which said so."""
    found = request(max_tokens=5, max_completion_tokens=7)
    assert (found.max_tokens, found.max_tokens_field) == (7, "max_completion_tokens")
    assert request(max_tokens=5).max_tokens_field == "max_tokens"


@pytest.mark.parametrize("wish", DraftWish)
def test_draft_field_is_taken_out(wish):
    """The `draft` field is the gateway's own and never goes to a backend."""
    assert request(draft=wish.value).draft is wish
    assert "draft" not in encoded(draft=wish.value)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 3}, "model"),
        ({"model": ""}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [*HELLO, {"content": "x"}]}, "messages[1].role"),
        ({"messages": [*HELLO, {"role": 1, "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"type": "text"}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": ["x"]}]}, "messages[0].tool_calls[0]"),
        ({"stream": "true"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "0"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"stop": 3}, "stop"),
        ({"stop": ["a", 3]}, "stop[1]"),
        ({"stop": ["a"] * 65}, "stop"),
        ({"tools": "x"}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"response_format": {"schema": 1}}, "response_format"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": "x"}, "metadata"),
        ({"draft": True}, "draft"),
        ({"draft": "on"}, "draft"),
        ({"Messages": HELLO}, "Messages"),
        ({"MAX_TOKENS": 3}, "MAX_TOKENS"),
        ({"\u017ftream": True}, "\u017ftream"),
        ({"messages": [{"role": "user", "content": "x", "Content": "y"}]}, "messages[0].Content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "Text": "y"}]}]},
            "messages[0].content[0].Text",
        ),
    ],
)
def test_wrong_field_is_named(fields, param):
    """A wrong field is refused with its path."""
    with pytest.raises(InvalidRequest) as caught:
        request(**fields)
    assert caught.value.param == param
    assert caught.value.status == 400


def test_key_given_twice_in_a_message():
    """What is classified is what the backend reads: a message cannot say two things."""
    body = b'{"model":"a","messages":[{"role":"user","content":"harmless","content":"4111 1111 1111 1111"}]}'
    with pytest.raises(InvalidRequest) as caught:
        decode_request(body)
    assert caught.value.param == "content"


# --- messages ---------------------------------------------------------------------------------------------------


def test_parts_become_text_and_counts():
    """Text parts become lines; images and audio are counted and their data is not in the prompt's bytes."""
    parts = [
        {"type": "text", "text": "look:"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}},
        {"type": "input_audio", "input_audio": {"data": "A" * 10_000, "format": "wav"}},
        {"type": "text", "text": "what is it?"},
    ]
    found = request(messages=[{"role": "user", "content": parts}])
    assert found.messages == (Message("user", "look:\nwhat is it?"),)
    assert (found.images, found.audio) == (1, 1)
    assert found.prompt_bytes == len("user") + len("look:\nwhat is it?")


def test_part_of_an_unknown_kind_counts_whole():
    """A part that the gateway cannot read is taken for an image, and every byte of it for prompt."""
    part = {"type": "file", "file": {"file_data": "A" * 500}}
    found = request(messages=[{"role": "user", "content": [part]}])
    assert found.images == 1
    assert found.prompt_bytes > 500


def test_calls_and_their_results_are_text():
    """Calls that were made and what the tools said are part of the prompt's text and bytes."""
    call = {"id": "1", "type": "function", "function": {"name": "pay", "arguments": '{"iban":"DE89"}'}}
    custom = {"id": "2", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}
    found = request(
        messages=[
            {"role": "assistant", "content": None, "tool_calls": [call, custom]},
            {"role": "tool", "tool_call_id": "1", "content": "done"},
            {"role": "assistant", "function_call": {"name": "old", "arguments": "{}"}},
        ]
    )
    assert [message.text for message in found.messages] == ['pay({"iban":"DE89"})\nsql(select 1)', "done", "old({})"]
    assert found.prompt_bytes > len(json.dumps([call, custom]).replace(" ", ""))


def test_prompt_bytes_count_all_that_may_become_tokens():
    """Text counts in UTF-8 bytes; tools, schemas and unknown fields count, settings do not."""
    assert request(messages=[{"role": "user", "content": "é🙂"}]).prompt_bytes == len("user") + 6
    plain = request().prompt_bytes
    assert request(temperature=1, seed=3, user="x" * 100, stop="y" * 100).prompt_bytes == plain
    tool = {"type": "function", "function": {"name": "f", "description": "x" * 500}}
    assert request(tools=[tool]).prompt_bytes - plain >= 500
    assert request(response_format={"type": "json_schema", "json_schema": {"d": "x" * 500}}).prompt_bytes - plain > 500
    assert request(documents=["x" * 500]).prompt_bytes - plain > 500


# --- to the backend ---------------------------------------------------------------------------------------------


def test_unknown_fields_are_kept_byte_for_byte():
    """What the gateway does not know reaches the backend exactly as it was written."""
    unknown = b'{ "b" : [1.0, 1e5, "\\u00e9\\/"],\n "a":{"x":0.10} }'
    body = b'{"model":"large","messages":[{"role":"user","content":"x","odd": 1.50}],"unknown":' + unknown + b"}"
    sent = encode_request(decode_request(body), DEPLOYMENT, max_tokens=None)
    assert b'"unknown":' + unknown in sent
    assert b'[{"role":"user","content":"x","odd": 1.50}]' in sent


def test_backend_body_is_golden():
    """The body that a backend gets is exactly this."""
    body = (GOLDEN / "request.json").read_bytes()
    expected = (GOLDEN / "request_sent.json").read_bytes().rstrip(b"\n")
    assert encode_request(decode_request(body), DEPLOYMENT, max_tokens=64) == expected


def test_limit_replaces_the_clients_in_its_own_field():
    """The clamped limit stands in the field that the client used, and every other field that could lift it is gone."""
    assert encoded(max_tokens=3, max_completion_tokens=9)["max_completion_tokens"] == 3
    sent = encode_request(request(max_tokens=9, n_predict=10_000, max_new_tokens=5), DEPLOYMENT, max_tokens=3)
    assert {key: value for key, value in json.loads(sent).items() if "max" in key or "predict" in key} == {
        "max_tokens": 3
    }


def test_limit_without_the_clients_uses_the_backends_field():
    """Where the client named none, the limit stands in the field that the backend takes."""
    assert encoded(max_tokens=3)["max_tokens"] == 3
    sent = encoded(NEWER, max_tokens=3)
    assert sent["max_completion_tokens"] == 3
    assert "max_tokens" not in sent


def test_beside_a_prediction_the_limit_is_max_tokens():
    """OpenAI takes no other name there: not beside the gateway's prediction, and a client's only where it named it."""
    added = msgspec.structs.replace(request(max_completion_tokens=9), prediction="x", prediction_bytes=1)
    theirs = {"prediction": {"type": "content", "content": "x"}}
    for asked, name in (
        (added, "max_tokens"),
        (request(max_tokens=9, **theirs), "max_tokens"),
        (request(**theirs), "max_tokens"),
        (request(max_completion_tokens=9, **theirs), "max_completion_tokens"),
    ):
        sent = json.loads(encode_request(asked, NEWER, max_tokens=3))
        assert {key: value for key, value in sent.items() if key.startswith("max")} == {name: 3}


def test_no_limit_leaves_the_clients():
    """Without a limit of the gateway's, what the client said stays."""
    sent = json.loads(encode_request(request(max_tokens=9), DEPLOYMENT, max_tokens=None))
    assert sent["max_tokens"] == 9
    assert "max_tokens" not in encoded()


def test_streams_ask_for_usage():
    """A streamed request asks the backend for usage, whatever the client said, and keeps the client's other options."""
    assert encoded(stream=True)["stream_options"] == {"include_usage": True}
    assert encoded(stream=True, stream_options=None)["stream_options"] == {"include_usage": True}
    options = {"include_usage": False, "include_obfuscation": False}
    sent = encoded(stream=True, stream_options=options)["stream_options"]
    assert sent == {"include_usage": True, "include_obfuscation": False}
    assert "stream_options" not in encoded()


def test_model_is_the_backends():
    """The public name is replaced by the name that the backend knows."""
    assert encoded()["model"] == "vendor/m"


def test_request_is_not_changed_by_encoding():
    """One request is encoded for several deployments: encoding leaves it as it was."""
    found = request(stream=True, max_tokens=9)
    before = dict(found.fields)
    encode_request(found, DEPLOYMENT, max_tokens=3)
    assert found.fields == before
