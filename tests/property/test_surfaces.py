"""What must hold between schemas: nothing that both can say is lost, however a stream is split."""

import itertools
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.dialect import dialect_of
from gateway.inference.conversation import (
    Conversation,
    Image,
    OutputFormat,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from gateway.inference.deployment import FREE, Backend, Deployment
from gateway.inference.events import (
    Finished,
    ReasoningDelta,
    Relayed,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from gateway.inference.request import InferenceRequest, Sampling
from gateway.inference.usage import Usage
from gateway.wire import (
    anthropic_messages,
    anthropic_messages_write,
    openai_chat,
    openai_chat_write,
    openai_responses,
)
from gateway.wire.anthropic_messages_answer import CanonicalMessage, MessagesDecoder
from gateway.wire.collected import Collected
from gateway.wire.openai_chat import StreamDecoder
from gateway.wire.openai_chat_canonical import CanonicalAnswer
from gateway.wire.openai_chat_read import with_conversation
from tests.unit.wire.answers import made

DEPLOYMENT = Deployment(id="c/m", backend=Backend(name="c", type="openai", region="eu"), model="m", price=FREE)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
JSON = st.dictionaries(WORDS, st.integers(-9, 9) | WORDS | st.lists(st.booleans(), max_size=2), max_size=2)
TEXTS = st.builds(Text, WORDS)
IMAGES = st.builds(Image, url=st.just("https://example.com/a.png")) | st.builds(
    Image, data=st.sampled_from(["AA==", "aGk="]), media_type=st.just("image/png")
)
SCHEMAS = st.fixed_dictionaries({"type": st.just("object"), "properties": st.just({})})
TOOLS = st.builds(Tool, name=WORDS, description=st.none() | WORDS, parameters=SCHEMAS, strict=st.none() | st.booleans())
SURFACES = ("chat", "messages", "responses", "completions")


@st.composite
def calls(draw):
    given_calls = draw(st.lists(st.tuples(WORDS, JSON), max_size=3))
    return [ToolCall(f"c{i}", name, msgspec.json.encode(value).decode()) for i, (name, value) in enumerate(given_calls)]


@st.composite
def conversations(draw):
    """A conversation that each schema can say: sides take turns, each call has its result."""
    turns = [Turn("system", (draw(TEXTS),))] if draw(st.booleans()) else []
    turns.append(Turn("user", tuple(draw(st.lists(TEXTS | IMAGES, min_size=1, max_size=3)))))
    for _ in range(draw(st.integers(0, 2))):
        made_calls = draw(calls())
        said = [draw(TEXTS)] if not made_calls or draw(st.booleans()) else []
        turns.append(Turn("assistant", (*said, *made_calls)))
        turns += [Turn("tool", (ToolResult(call_id=call.id, parts=(draw(TEXTS),)),)) for call in made_calls]
        if not made_calls or draw(st.booleans()):
            turns.append(Turn("user", (draw(TEXTS),)))
    tools = tuple(draw(st.lists(TOOLS, max_size=2)))
    choice = st.sampled_from([None, ToolChoice("auto"), ToolChoice("required"), ToolChoice("named", "f")])
    return Conversation(
        turns=tuple(turns),
        tools=tools,
        tool_choice=draw(choice) if tools else None,
        output=draw(st.none() | st.builds(OutputFormat, schema=SCHEMAS, name=st.just("answer"), strict=st.just(True))),
        effort=draw(st.sampled_from([None, "low", "high"])),
        user=draw(st.none() | WORDS),
    )


def request_of(conversation):
    sampling = Sampling(temperature=0.5, stop=("a", "b"))
    return InferenceRequest(
        surface="responses",
        model="m",
        messages=(),
        fields={},
        max_tokens=7,
        sampling=sampling,
        conversation=conversation,
        stream=True,
    )


@given(conversations())
@settings(max_examples=150, deadline=None)
def test_a_conversation_survives_the_chat_schema(conversation):
    """Written as a chat request and read again, it is the same conversation."""
    body = openai_chat_write.write_request(request_of(conversation), DEPLOYMENT, max_tokens=None)
    read = with_conversation(openai_chat.decode_request(body))
    assert (read.conversation, read.native_only) == (conversation, ())
    assert (read.max_tokens, read.sampling.stop, read.stream, read.include_usage) == (7, ("a", "b"), True, True)


@given(conversations())
@settings(max_examples=150, deadline=None)
def test_a_conversation_survives_the_messages_schema(conversation):
    """Written as a Messages request and read again, it is the same conversation; a schema's name is lost there."""
    body = anthropic_messages_write.write_request(request_of(conversation), DEPLOYMENT, max_tokens=None)
    read = anthropic_messages.decode_request(body)
    output = conversation.output and OutputFormat(schema=conversation.output.schema, strict=True)
    assert (read.conversation, read.native_only) == (msgspec.structs.replace(conversation, output=output), ())
    assert (read.max_tokens, read.sampling.stop, read.stream) == (7, ("a", "b"), True)


def responses_body(conversation):
    """The conversation as a Responses client sends it."""
    items = []
    for turn in conversation.turns:
        parts = [_input_part(turn.role, part) for part in turn.parts if isinstance(part, Text | Image)]
        if parts:
            items.append({"role": turn.role, "content": parts})
        items += [
            {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments}
            for part in turn.parts
            if isinstance(part, ToolCall)
        ]
        items += [
            {"type": "function_call_output", "call_id": part.call_id, "output": part.parts[0].text}
            for part in turn.parts
            if isinstance(part, ToolResult)
        ]
    body = {"model": "m", "input": items, "max_output_tokens": 7, "stream": True}
    if conversation.tools:
        body["tools"] = [{"type": "function", **_given(tool)} for tool in conversation.tools]
    choice = conversation.tool_choice
    if choice is not None:
        named = {"type": "function", "name": choice.name}
        body["tool_choice"] = named if choice.kind == "named" else choice.kind
    if conversation.output is not None:
        body["text"] = {"format": {"type": "json_schema", **_given(conversation.output)}}
    if conversation.effort is not None:
        body["reasoning"] = {"effort": conversation.effort}
    if conversation.user is not None:
        body["user"] = conversation.user
    return msgspec.json.encode(body)


def _given(described):
    return {name: value for name, value in msgspec.structs.asdict(described).items() if value is not None}


def _input_part(role, part):
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": part.url or f"data:{part.media_type};base64,{part.data}"}
    return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text}


def chat_body(conversation):
    return openai_chat_write.write_request(request_of(conversation), DEPLOYMENT, max_tokens=None)


def messages_body(conversation):
    return anthropic_messages_write.write_request(request_of(conversation), DEPLOYMENT, max_tokens=None)


CLIENTS = {
    "chat": (chat_body, openai_chat.decode_request),
    "messages": (messages_body, anthropic_messages.decode_request),
    "responses": (responses_body, openai_responses.decode_request),
}
BACKENDS = {"openai": openai_chat.decode_request, "anthropic": anthropic_messages.decode_request}


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("surface", CLIENTS)
@given(conversation=conversations())
@settings(max_examples=80, deadline=None)
def test_nothing_is_lost_between_any_surface_and_any_backend(surface, kind, conversation):
    """A client's body, decoded and encoded for a backend, tells that backend the same conversation.

    A schema's name is lost where Messages stands on either side: it has none.
    """
    body, decode = CLIENTS[surface]
    request = decode(body(conversation))
    backend = msgspec.structs.replace(DEPLOYMENT, backend=Backend(name="c", type=kind, region="eu"))
    sent = dialect_of(backend, surface).encode(request, backend, max_tokens=None, ask_usage=False)
    read = with_conversation(BACKENDS[kind](sent))
    assert _nameless(read.conversation) == _nameless(conversation)
    assert read.native_only == ()
    assert read.model == "m"


def _nameless(conversation):
    output = conversation.output and OutputFormat(schema=conversation.output.schema, strict=True)
    return msgspec.structs.replace(conversation, output=output)


@st.composite
def answers(draw):
    """The deltas of an answer: thought, text, calls in pieces, how it ended, what it used."""
    events = [ReasoningDelta(text) for text in draw(st.lists(WORDS, max_size=2))]
    events += [TextDelta(text) for text in draw(st.lists(WORDS, max_size=3))]
    for index, call in enumerate(draw(calls())):
        cut = draw(st.integers(0, len(call.arguments)))
        events.append(ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments[:cut]))
        events.append(ToolCallDelta(index=index, arguments=call.arguments[cut:]))
    reason = (
        "tool_calls" if isinstance(events and events[-1], ToolCallDelta) else draw(st.sampled_from(["stop", "length"]))
    )
    return [*events, Finished(reason), UsageReported(Usage(input_tokens=9, output_tokens=4))]


def collected(events):
    answer = Collected()
    for event in events:
        answer.add(event)
    return answer.blocks, answer.finished, answer.usage


def split(data, cuts):
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 2**16), max_size=6)


def canonical(decoder, reader, stream, cuts):
    events = [event for piece in split(stream, cuts) for event in decoder.feed(piece)] + decoder.close()
    return collected([found for event in events for found in reader.events(event)] + reader.end())


@given(answers(), CUTS)
@settings(max_examples=150, deadline=None)
def test_an_answer_survives_the_chat_schema(events, cuts):
    """Streamed to a chat client, split anywhere and read as a chat backend's answer, it is the same answer."""
    writer = made("chat", "StreamEncoder", stream=True)
    stream = b"".join(map(writer.encode, events)) + writer.end()
    assert canonical(StreamDecoder(deployment="d"), CanonicalAnswer(), stream, cuts) == collected(events)


@given(answers(), CUTS)
@settings(max_examples=150, deadline=None)
def test_an_answer_survives_the_messages_schema(events, cuts):
    """Streamed to a Messages client, split anywhere and read as a Messages backend's answer, it is the same answer."""
    writer = made("messages", "StreamEncoder", stream=True)
    stream = b"".join(map(writer.encode, events)) + writer.end()
    found = canonical(MessagesDecoder(deployment="d"), CanonicalMessage(), stream, cuts)
    assert found == collected(events)


@given(answers())
@settings(max_examples=100, deadline=None)
def test_relayed_messages_are_not_changed(events):
    """What a Messages backend streams reaches a Messages client byte for byte."""
    writer = made("messages", "StreamEncoder", stream=True)
    stream = b"".join(map(writer.encode, events)) + writer.end()
    decoder = MessagesDecoder(deployment="d")
    relayed = decoder.feed(stream) + decoder.close()
    assert b"".join(event.data for event in relayed if isinstance(event, Relayed)) == stream


@pytest.mark.parametrize("surface", SURFACES)
@given(events=answers())
@settings(max_examples=60, deadline=None)
def test_a_stream_says_what_the_whole_answer_says(surface, events):
    """The same answer, streamed and whole, is the same to a client of each surface."""
    writer = made(surface, "AnswerEncoder")
    for event in events:
        writer.add(event)
    body = json.loads(writer.body())
    writer = made(surface, "StreamEncoder", stream=True)
    stream = b"".join(map(writer.encode, events)) + writer.end()
    payloads = [json.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: {")]
    match surface:
        case "responses":
            assert payloads[-1]["response"] == body
        case "messages":
            assert len(body["content"]) == len(collected(events)[0])
            assert payloads[-2]["delta"]["stop_reason"] == body["stop_reason"]
            assert payloads[-2]["usage"] == body["usage"]
        case "chat":
            pieces = [payload["choices"][0]["delta"].get("content") or "" for payload in payloads[:-1]]
            assert "".join(pieces) == (body["choices"][0]["message"]["content"] or "")
            assert payloads[-1]["usage"] == body["usage"]
        case _:
            text = "".join(choice["text"] for payload in payloads for choice in payload["choices"])
            assert text == body["choices"][0]["text"]


def test_signed_thoughts_go_back_to_who_wrote_them():
    """A Messages backend gets its own thoughts again, signature included; unsigned ones are left out."""
    turns = (
        Turn("user", (Text("x"),)),
        Turn("assistant", (Reasoning(text="a", signature="s"), Reasoning(text="b"), Reasoning(sealed="z"), Text("y"))),
        Turn("user", (Text("z"),)),
    )
    body = anthropic_messages_write.write_request(request_of(Conversation(turns=turns)), DEPLOYMENT, max_tokens=None)
    kinds = [block["type"] for block in json.loads(body)["messages"][1]["content"]]
    assert kinds == ["thinking", "redacted_thinking", "text"]
