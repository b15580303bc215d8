"""The `openai` package's Responses against a whole gateway: real edge, real store, scripted chat backend."""

import asyncio
import json

import openai
import pytest
from pydantic import BaseModel

from tests.gateway_fixture import KEY, OTHER_KEY, policy_text
from tests.upstream.script import Script

ASK = "What is the capital of France? Answer in one word."
DRAFT_ROUTE = "mode: draft_refine\n    models: [large]\n    fallback: [small]\n    draft: {max_tokens: 24}"
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
PARIS = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
ROME = {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}


def client_of(gateway, key=KEY):
    return openai.AsyncOpenAI(base_url=gateway.base_url, api_key=key, max_retries=0)


@pytest.fixture
async def gateway(start_gateway, upstream):
    return await start_gateway(policy_text(upstream.base_url, route=DRAFT_ROUTE))


@pytest.fixture
async def cloud(start_gateway, upstream):
    return await start_gateway(policy_text(upstream.base_url), edge=False)


async def test_plain_response_from_a_chat_backend(cloud, upstream):
    """A response has its text, its usage, and says back what was asked; the backend got an ordinary chat request."""
    upstream.default = Script(text="Paris.")
    response = await client_of(cloud).responses.create(
        model="large",
        input=ASK,
        instructions="Be brief.",
        max_output_tokens=50,
        temperature=0.5,
        reasoning={"effort": "low"},
        metadata={"a": "b"},
    )
    assert response.output_text == "Paris."
    assert (response.status, response.model, response.error) == ("completed", "large", None)
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (11, 1, 12)
    assert (response.instructions, response.temperature, response.metadata) == ("Be brief.", 0.5, {"a": "b"})
    assert upstream.requests[-1].json == {
        "model": "scripted",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASK}],
        "max_tokens": 50,
        "temperature": 0.5,
        "reasoning_effort": "low",
    }


async def test_streamed_response(cloud, upstream):
    """The helper puts the same response together; events come in OpenAI's order, numbered without a gap."""
    upstream.default = Script(text="Paris it is.", chunks=3)
    stream = await client_of(cloud).responses.create(model="large", input=ASK, stream=True)
    events = [event async for event in stream]
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    async with client_of(cloud).responses.stream(model="large", input=ASK) as stream:
        async for _ in stream:
            pass
        response = await stream.get_final_response()
    assert response.output_text == "Paris it is."
    assert response.usage.output_tokens == 3


@pytest.mark.parametrize("streamed", [False, True])
async def test_parallel_calls_and_their_results(cloud, upstream, streamed):
    """Calls are items; with their outputs they go back as one assistant message and its results."""
    upstream.default = Script(text="I look.", tool_calls=[PARIS, ROME], finish_reason="tool_calls")
    client = client_of(cloud).responses
    asked = {"model": "large", "input": ASK, "tools": [WEATHER], "parallel_tool_calls": True}
    if streamed:
        async with client.stream(**asked) as stream:
            async for _ in stream:
                pass
            response = await stream.get_final_response()
    else:
        response = await client.create(**asked)
    calls = [item for item in response.output if item.type == "function_call"]
    found = [(call.call_id, json.loads(call.arguments)["city"]) for call in calls]
    assert found == [("call_1", "Paris"), ("call_2", "Rome")]
    assert upstream.requests[-1].json["tools"][0]["function"]["name"] == "weather"
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls]
    items = [{"role": "user", "content": ASK}, *(item.to_dict() for item in response.output), *outputs]
    await client.create(model="large", input=items, tools=[WEATHER])
    sent = upstream.requests[-1].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in sent[1]["tool_calls"]] == ["call_1", "call_2"]
    assert sent[1]["content"] == ("I look." if streamed else None)


async def test_a_conversation_goes_on_from_the_previous_response(cloud, upstream):
    """Only the new input is sent; the backend sees all turns, the instructions of the last request alone."""
    client = client_of(cloud).responses
    upstream.default = Script(text="Paris.")
    first = await client.create(model="large", input=ASK, instructions="Be brief.")
    upstream.default = Script(text="Rome.")
    async with client.stream(model="large", input="And of Italy?", previous_response_id=first.id) as stream:
        async for _ in stream:
            pass
        second = await stream.get_final_response()
    assert second.previous_response_id == first.id
    await client.create(model="large", input="And of Spain?", previous_response_id=second.id, instructions="Shout.")
    sent = upstream.requests[-1].json["messages"]
    assert [(message["role"], message["content"]) for message in sent] == [
        ("system", "Shout."),
        ("user", ASK),
        ("assistant", "Paris."),
        ("user", "And of Italy?"),
        ("assistant", "Rome."),
        ("user", "And of Spain?"),
    ]


async def test_kept_responses_belong_to_their_tenant(cloud, upstream):
    """What was kept can be fetched and deleted by its tenant; others do not see it; `store: false` keeps nothing."""
    client = client_of(cloud).responses
    kept = await client.create(model="large", input=ASK)
    assert kept.model_extra["store"] is True
    assert (await client.retrieve(kept.id)).output_text == kept.output_text
    other = client_of(cloud, key=OTHER_KEY).responses
    for refused in (other.retrieve(kept.id), other.delete(kept.id)):
        with pytest.raises(openai.NotFoundError):
            await refused
    with pytest.raises(openai.BadRequestError) as failure:
        await other.create(model="large", input="And?", previous_response_id=kept.id)
    assert (failure.value.code, failure.value.param) == ("previous_response_not_found", "previous_response_id")
    await client.delete(kept.id)
    with pytest.raises(openai.NotFoundError):
        await client.retrieve(kept.id)
    passing = await client.create(model="large", input=ASK, store=False)
    assert passing.model_extra["store"] is False
    with pytest.raises(openai.NotFoundError):
        await client.retrieve(passing.id)


async def test_parse_with_a_pydantic_model(cloud, upstream):
    """Structured output: the schema reaches the backend, its JSON becomes the model."""

    class City(BaseModel):
        name: str

    upstream.default = Script(text='{"name": "Paris"}')
    response = await client_of(cloud).responses.parse(model="large", input=ASK, text_format=City)
    assert response.output_parsed == City(name="Paris")
    assert upstream.requests[-1].json["response_format"]["json_schema"]["strict"] is True


async def test_images_and_roles(cloud, upstream):
    """Parts of input reach the backend in chat's words; `developer` stays `developer`."""
    content = [
        {"type": "input_text", "text": "?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
    ]
    items = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": content}]
    await client_of(cloud).responses.create(model="large", input=items)
    sent = upstream.requests[-1].json["messages"]
    assert sent[0] == {"role": "developer", "content": "Be kind."}
    image = {"url": "data:image/png;base64,AAAA", "detail": "low"}
    assert sent[1]["content"][1] == {"type": "image_url", "image_url": image}


async def test_an_answer_that_was_too_long_is_incomplete(cloud, upstream):
    """A limit that was reached is a status, with its reason."""
    upstream.default = Script(text="Paris", finish_reason="length")
    response = await client_of(cloud).responses.create(model="large", input=ASK, max_output_tokens=1)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


async def test_what_cannot_be_done_is_refused_by_name(cloud, upstream):
    """Hosted tools and stored prompts are a 400 that names the field; nothing is sent."""
    client = client_of(cloud).responses
    refused = {
        "tools[0]": {"tools": [{"type": "web_search"}]},
        "prompt": {"prompt": {"id": "pmpt_1"}},
        "input[0].type": {"input": [{"type": "item_reference", "id": "msg_1"}]},
    }
    for field, more in refused.items():
        with pytest.raises(openai.BadRequestError) as failure:
            await client.create(**({"model": "large", "input": ASK} | more))
        assert failure.value.param == field
    assert upstream.requests == []


async def test_errors_in_both_forms(cloud, upstream):
    """A refused request is the SDK's exception; a stream that is cut raises too, with the code."""
    client = client_of(cloud).responses
    with pytest.raises(openai.NotFoundError) as failure:
        await client.create(model="lerge", input=ASK)
    assert failure.value.code == "model_not_found"
    upstream.default = Script(chunks=8, cut_after=3)
    stream = await client.create(model="large", input=ASK, stream=True)
    with pytest.raises(openai.APIError) as failure:
        _ = [event async for event in stream]
    assert failure.value.code == "backend_cut"


async def test_drafts_change_nothing_in_what_the_sdk_shows(gateway, upstream):
    """With drafts on, the helper sees the same response; a raw reader finds them on `response.in_progress`."""
    upstream.default = Script(text="Paris.", think_s=1.5)
    client = client_of(gateway).responses
    more = {"extra_body": {"draft": "frames"}}
    async with client.stream(model="large", input=ASK, **more) as stream:
        async for _ in stream:
            pass
        response = await stream.get_final_response()
    assert response.output_text == "Paris."
    stream = await client.create(model="large", input=ASK, stream=True, **more)
    events = [event async for event in stream]
    frames = [event.model_extra["draft"] for event in events if "draft" in (event.model_extra or {})]
    states = [frame["state"] for frame in frames]
    assert set(states[:-2]) == {"partial"}
    assert states[-2] == "complete"
    assert states[-1] in {"confirmed", "revised", "replaced"}
    assert {event.type for event in events if "draft" in (event.model_extra or {})} == {"response.in_progress"}
    plain = await client.create(model="large", input=ASK, **more)
    assert plain.output_text == "Paris."
    assert plain.model_extra["draft"]["state"] in {"confirmed", "revised", "replaced"}


async def test_the_real_edge_answers_responses(gateway):
    """A model on the edge gives a response of its own, and goes on from it."""
    client = client_of(gateway).responses
    first = await client.create(model="small", input=ASK, max_output_tokens=12)
    assert first.output_text
    second = await client.create(model="small", input="Why?", previous_response_id=first.id, max_output_tokens=12)
    assert second.usage.input_tokens > first.usage.input_tokens


async def test_a_client_that_leaves_ends_the_backend(cloud, upstream):
    """Closing the stream cancels the backend's work."""
    upstream.default = Script(chunks=500, delay_s=0.05)
    stream = await client_of(cloud).responses.create(model="large", input=ASK, stream=True)
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    async with asyncio.timeout(3):
        while upstream.open:
            await asyncio.sleep(0.02)
    assert upstream.disconnects
