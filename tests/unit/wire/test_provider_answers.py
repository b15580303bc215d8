"""Answers in the form that each provider documents: what a client gets of them, and what the hub makes of them."""

import json
from pathlib import Path

import pytest

from gateway.backends.dialect import dialect_of
from gateway.inference.conversation import Text
from gateway.inference.deployment import FREE, Backend, Deployment
from gateway.inference.events import Relayed, UsageReported
from gateway.inference.request import DraftWish
from gateway.wire import anthropic_messages, openai_chat, openai_completions, openai_embeddings
from gateway.wire.collected import Collected
from gateway.wire.openai_chat_convert import stream_of, whole_of
from gateway.wire.sse import frame

LINES = (Path(__file__).parents[2] / "data/provider_answers.jsonl").read_text().splitlines()
ANSWERS = {answer["name"]: answer for answer in map(json.loads, LINES)}
STREAMED = {name: answer for name, answer in ANSWERS.items() if answer["stream"]}
CHAT = {name: answer for name, answer in ANSWERS.items() if answer["surface"] == "chat"}
SCHEMAS = {
    "chat": (openai_chat, {"messages": [{"role": "user", "content": "?"}], "stream_options": {"include_usage": True}}),
    "messages": (anthropic_messages, {"messages": [{"role": "user", "content": "?"}], "max_tokens": 9}),
    "completions": (openai_completions, {"prompt": "?", "stream_options": {"include_usage": True}}),
    "embeddings": (openai_embeddings, {"input": "?"}),
}


def deployment(kind):
    return Deployment(id="b/m", backend=Backend(name="b", type=kind, region="eu"), model="m", price=FREE)


def dialect(answer):
    return dialect_of(deployment("anthropic" if answer["surface"] == "messages" else "openai"), answer["surface"])


def encoder(answer, kind, *, stream):
    schema, body = SCHEMAS[answer["surface"]]
    asked = {"model": "large", **body} | ({"stream": True} if stream else {})
    request = schema.decode_request(json.dumps(asked).encode())
    return getattr(schema, kind)(request=request, response_id="x-1", created=1, model="large", wish=DraftWish.OFF)


def sent(answer):
    """The stream as the provider sends it."""
    named = answer["surface"] == "messages"
    events = [f": {comment}\n\n".encode() for comment in answer["comments"]]
    for payload in answer["stream"]:
        name = f"event: {payload['type']}\n".encode() if named else b""
        events.append(name + frame(json.dumps(payload, ensure_ascii=False).encode()))
    return b"".join(events) + (b"" if named else b"data: [DONE]\n\n")


def payloads(stream):
    return [json.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: {")]


def decoded(answer, size):
    decoder = dialect(answer).decoder(deployment="d", n=1)
    data = sent(answer)
    found = [event for at in range(0, len(data), size) for event in decoder.feed(data[at : at + size])]
    return found + decoder.close()


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_answer_reaches_its_client_byte_for_byte(name):
    """Whatever fields a provider has, a client of the same schema gets all of them as they came."""
    answer = ANSWERS[name]
    body = json.dumps(answer["answer"], ensure_ascii=False).encode()
    whole = dialect(answer).decode(body, deployment="d")
    writer = encoder(answer, "AnswerEncoder", stream=False)
    writer.add(whole)
    assert writer.body() == body
    usage = answer["answer"]["usage"]
    assert whole.usage.input_tokens == usage.get("prompt_tokens", usage.get("input_tokens"))
    assert whole.usage.output_tokens == usage.get("completion_tokens", usage.get("output_tokens", 0))


@pytest.mark.parametrize("size", [1, 37, 100_000])
@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_reaches_its_client_with_every_field(name, size):
    """However the stream is cut into reads, its client gets every chunk, every field of it, and its usage."""
    answer = STREAMED[name]
    writer = encoder(answer, "StreamEncoder", stream=True)
    stream = b"".join([writer.encode(event) for event in decoded(answer, size)]) + writer.end()
    # A chunk without choices that is not the usage breaks clients: Azure's first one is kept back.
    wanted = [one for one in answer["stream"] if one.get("choices") != [] or one.get("usage")]
    found = payloads(stream)
    if answer["surface"] == "chat" and wanted[-1]["choices"]:  # the usage came with the end: it is told as was asked
        told = found.pop()
        assert told["choices"] == []
        assert told["usage"]["total_tokens"] == wanted[-1]["usage"]["total_tokens"]
    assert found == wanted


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_tells_what_it_used(name):
    """Wherever a provider puts the usage (a chunk of its own, the last chunk, an event), it is found once."""
    found = [event.usage for event in decoded(STREAMED[name], 64) if isinstance(event, UsageReported)]
    assert len(found) == 1
    assert found[0].input_tokens > 0
    assert found[0].output_tokens > 0


@pytest.mark.parametrize("name", CHAT)
def test_a_whole_answer_that_is_given_as_a_stream_comes_back_equal(name):
    """An answer from the cache in the other form has every field that said something, or is not given in it at all."""
    answer = CHAT[name]["answer"]
    whole = dialect(CHAT[name]).decode(json.dumps(answer).encode(), deployment="d")
    events = stream_of(whole)
    if events is None:
        assert name in {"openai audio", "mistral thinking", *HAVE_MORE}
        return
    data = b"".join(event.data for event in events if isinstance(event, Relayed))
    usage = next((event for event in events if isinstance(event, UsageReported)), None)
    back = whole_of(data, usage)
    assert said(json.loads(back.body)) == said(answer)


HAVE_MORE = {
    *("azure openai", "mistral", "groq", "openrouter", "together", "perplexity", "cerebras", "sglang", "llama-server"),
}
"""Their answers have objects of their own, for which a stream has no place that clients would look at."""


def said(value):
    """What says something: null and empty members mean nothing in both forms."""
    if isinstance(value, dict):
        return {key: said(part) for key, part in value.items() if part not in (None, "", [], {})}
    return [said(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", STREAMED)
def test_the_hub_reads_the_same_from_both_forms(name):
    """Clients of another schema get the same text and calls from a provider's stream as from its whole answer."""
    answer = STREAMED[name]
    if answer["surface"] not in {"chat", "messages"}:
        pytest.skip("passed through only")
    kind = "openai" if answer["surface"] == "chat" else "anthropic"
    translator = dialect_of(deployment(kind), "responses").translator
    whole = dialect(answer).decode(json.dumps(answer["answer"]).encode(), deployment="d")
    found = []
    for events in ([whole], decoded(answer, 64)):
        reader = translator()
        collected = Collected()
        for event in events:
            for one in reader.events(event):
                collected.add(one)
        for one in reader.end():
            collected.add(one)
        found.append(collected)
    one, other = ((each.text(Text), [call.name for call in each.calls]) for each in found)
    assert one == other
    assert one[0] or one[1]
