import json

import pytest

from gateway.errors import InvalidRequest
from gateway.inference.conversation import Image, Reasoning, Text, ToolCall, ToolResult
from gateway.wire import anthropic_messages, openai_responses
from tests.unit.wire.answers import SITUATIONS, SURFACES, golden, request_of, streamed, whole
from tests.unit.wire.streams import FOLDER

GOLDEN = golden()


@pytest.mark.parametrize("name", GOLDEN)
def test_answer_is_golden(name):
    """The bytes of each situation on each surface are exactly those of its golden file."""
    assert GOLDEN[name] == (FOLDER / name).read_bytes()


def test_there_is_a_golden_file_for_each_and_no_more():
    """A file that nothing writes any more would prove nothing."""
    written = {name for surface in SURFACES for name in GOLDEN if name.startswith(surface)}
    prefixes = tuple(f"{surface}_" for surface in SURFACES)
    assert {path.name for path in FOLDER.iterdir() if path.name.startswith(prefixes)} == written


def events_of(stream):
    """Name and data of each event."""
    blocks = [block.split(b"\n") for block in stream.split(b"\n\n") if block and not block.startswith(b":")]
    return [(lines[0].removeprefix(b"event: ").decode(), json.loads(lines[-1][6:])) for lines in blocks]


@pytest.mark.parametrize("name", [name for name in SITUATIONS if name != "cut"])
def test_each_message_block_begins_grows_and_ends(name):
    """Messages: one start, blocks one after the other, one delta with the reason, one stop; names are the types."""
    events = events_of(streamed("messages", SITUATIONS[name]))
    assert all(kind == data["type"] for kind, data in events)
    kinds = [kind for kind, _ in events if kind != "ping"]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    open_block = None
    for kind, data in events:
        if kind == "content_block_start":
            assert open_block is None
            open_block = data["index"]
        elif kind == "content_block_delta":
            assert data["index"] == open_block
        elif kind == "content_block_stop":
            assert data["index"] == open_block
            open_block = None
    assert open_block is None


@pytest.mark.parametrize("name", [name for name in SITUATIONS if name != "cut"])
def test_each_response_event_has_its_number(name):
    """Responses: numbered without a gap, begun once, ended once, each item added and done under one id."""
    events = events_of(streamed("responses", SITUATIONS[name]))
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    assert next(kind for kind, _ in events) == "response.created"
    assert events[-1][0] in {"response.completed", "response.incomplete"}
    added = [data["item"]["id"] for kind, data in events if kind == "response.output_item.added"]
    done = [data["item"] for kind, data in events if kind == "response.output_item.done"]
    assert sorted(added) == sorted(item["id"] for item in done)
    assert events[-1][1]["response"]["output"] == sorted(done, key=lambda item: added.index(item["id"]))


def test_a_draft_frame_takes_nothing_back():
    """A frame between two deltas holds the output so far: SDKs that replace what they have lose nothing."""
    events = events_of(streamed("responses", SITUATIONS["frames"]))
    place = max(index for index, (_, data) in enumerate(events) if "draft" in data)
    assert place > next(index for index, (kind, _) in enumerate(events) if kind.endswith("text.delta"))
    assert events[place][1]["response"]["output"][0]["content"][0]["text"] == "The"


def test_a_cut_stream_ends_with_the_error_of_its_schema():
    """No stream that was cut says that it is complete."""
    assert streamed("messages", SITUATIONS["cut"]).split(b"\n\n")[-2].startswith(b"event: error\n")
    last = events_of(streamed("responses", SITUATIONS["cut"]))[-1]
    assert (last[0], last[1]["code"], last[1]["error"]["code"]) == ("error", "backend_cut", "backend_cut")
    for surface in ("chat", "completions"):
        assert b"[DONE]" not in streamed(surface, SITUATIONS["cut"])


def test_arguments_that_are_no_object_are_shown():
    """A model that writes broken JSON does not break a Messages client: the text is there to see."""
    events = [type(SITUATIONS["calls"][1])(index=0, id="c", name="f", arguments="{oops"), SITUATIONS["calls"][-2]]
    assert json.loads(whole("messages", events))["content"][0]["input"] == {"invalid_json": "{oops"}


def test_messages_become_turns():
    """Each block has its canonical part; results of tools are turns of their own, in order."""
    data = {"type": "base64", "media_type": "image/png", "data": "AA"}
    messages = [
        {"role": "user", "content": "x"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "zz"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "image", "source": data}]},
                {"type": "text", "text": "y"},
            ],
        },
    ]
    request = request_of("messages", messages=messages, system="s")
    turns = request.conversation.turns
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "tool", "user"]
    assert turns[2].parts == (
        Reasoning(text="hm", signature="s"),
        Reasoning(sealed="zz"),
        ToolCall("c", "f", '{"a":1}'),
    )
    assert turns[3].parts == (ToolResult(call_id="c", parts=(Image(data="AA", media_type="image/png"),)),)
    assert (request.images, request.messages[-1].text) == (1, "y")


@pytest.mark.parametrize(
    ("surface", "field", "more"),
    [
        ("messages", "max_tokens", {"max_tokens": 0}),
        ("messages", "max_tokens", {"max_tokens": None}),
        ("messages", "messages[0].role", {"messages": [{"role": "robot", "content": "x"}]}),
        ("messages", "messages[0].content[0].text", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        ("messages", "temperature", {"temperature": 1.5}),
        ("messages", "tools[0].input_schema", {"tools": [{"name": "f"}]}),
        ("messages", "tool_choice.type", {"tool_choice": {"type": "maybe"}}),
        ("messages", "thinking.budget_tokens", {"thinking": {"type": "enabled"}}),
        ("messages", "Messages", {"Messages": []}),
        ("messages", "draft", {"draft": "loud"}),
        ("responses", "input", {"input": 7}),
        ("responses", "input[0].role", {"input": [{"role": "robot", "content": "x"}]}),
        ("responses", "input[0].arguments", {"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}),
        ("responses", "tool_choice", {"tool_choice": "maybe"}),
        ("responses", "text.format.type", {"text": {"format": {"type": "xml"}}}),
        ("completions", "prompt[1]", {"prompt": ["x", {}]}),
    ],
)
def test_a_wrong_field_is_named(surface, field, more):
    """Whatever is wrong, the error says where."""
    with pytest.raises(InvalidRequest) as failure:
        request_of(surface, **more)
    assert failure.value.param == field


def test_a_response_goes_on_from_its_turns():
    """Earlier turns stand between this request's instructions and its input, and count as its prompt."""
    first = request_of("responses", input="one", instructions="old")
    second = request_of("responses", input="two", instructions="new")
    whole_request = openai_responses.continued(second, openai_responses.turns_of(first))
    texts = [part.text for turn in whole_request.conversation.turns for part in turn.parts]
    assert texts == ["new", "one", "two"]
    assert whole_request.prompt_bytes > second.prompt_bytes
    assert [part for turn in openai_responses.turns_of(whole_request) for part in turn.parts] == [
        Text("one"),
        Text("two"),
    ]


def test_counting_takes_a_body_without_a_limit():
    """`count_tokens` has no `max_tokens`."""
    body = json.dumps({"model": "large", "messages": [{"role": "user", "content": "x"}]}).encode()
    assert anthropic_messages.decode_count_request(body).max_tokens is None
