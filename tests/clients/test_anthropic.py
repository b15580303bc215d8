"""The real `anthropic` package against a whole gateway: real edge, real store, scripted chat backend."""

import asyncio
import json

import anthropic
import httpx
import pytest

from tests.gateway_fixture import KEY, policy_text
from tests.upstream.script import Script

ASK = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
DRAFT_ROUTE = "mode: draft_refine\n    models: [large]\n    fallback: [small]\n    draft: {max_tokens: 24}"
WEATHER = {"name": "weather", "description": "Of a city.", "input_schema": {"type": "object", "properties": {}}}
PARIS = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
ROME = {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}


def client_of(gateway, **more):
    return anthropic.AsyncAnthropic(base_url=gateway.url, **({"api_key": KEY, "max_retries": 0} | more))


@pytest.fixture
async def gateway(start_gateway, upstream):
    return await start_gateway(policy_text(upstream.base_url, route=DRAFT_ROUTE))


@pytest.fixture
async def cloud(start_gateway, upstream):
    return await start_gateway(policy_text(upstream.base_url), edge=False)


async def test_plain_message_from_a_chat_backend(cloud, upstream):
    """A message has its text, why it stopped, and its usage; the backend got an ordinary chat request."""
    upstream.default = Script(text="Paris.")
    message = await client_of(cloud).messages.create(
        model="large",
        max_tokens=50,
        messages=ASK,
        system="Be brief.",
        stop_sequences=["\n\n"],
        extra_body={"temperature": 0.5, "top_k": 5},
    )
    assert [block.text for block in message.content] == ["Paris."]
    assert (message.stop_reason, message.role, message.model) == ("end_turn", "assistant", "large")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (11, 1)
    assert message.id.startswith("msg_")
    assert message._request_id.startswith("req-")
    sent = upstream.requests[-1].json
    assert sent == {
        "model": "scripted",
        "messages": [{"role": "system", "content": "Be brief."}, ASK[0]],
        "max_tokens": 50,
        "temperature": 0.5,
        "top_k": 5,
        "stop": ["\n\n"],
    }
    assert upstream.requests[-1].headers["authorization"] == "Bearer sk-upstream"


async def test_both_ways_to_send_the_key(cloud, upstream):
    """`x-api-key` and `authorization` both say who asks."""
    for given in ({"api_key": KEY}, {"api_key": None, "auth_token": KEY}):
        message = await client_of(cloud, **given).messages.create(model="large", max_tokens=5, messages=ASK)
        assert message.content


async def test_streamed_message(cloud, upstream):
    """The helper puts the same message together from the stream, usage included."""
    upstream.default = Script(text="Paris it is.", chunks=6)
    async with client_of(cloud).messages.stream(model="large", max_tokens=50, messages=ASK) as stream:
        pieces = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert message.content[0].text == "".join(pieces)
    assert len(pieces) == 6
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 11, 6)
    assert upstream.requests[-1].json["stream_options"] == {"include_usage": True}


async def test_streamed_events_come_in_anthropics_order(cloud, upstream):
    """Start, one block, the reason, the end."""
    upstream.default = Script(chunks=2)
    stream = await client_of(cloud).messages.create(model="large", max_tokens=50, messages=ASK, stream=True)
    assert [event.type async for event in stream] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


@pytest.mark.parametrize("streamed", [False, True])
async def test_parallel_tool_calls(cloud, upstream, streamed):
    """Two calls are two blocks with their inputs as objects; the definitions reached the backend as functions."""
    upstream.default = Script(text="", chunks=0, tool_calls=[PARIS, ROME], finish_reason="tool_calls")
    more = {"tools": [WEATHER], "tool_choice": {"type": "any", "disable_parallel_tool_use": False}}
    client = client_of(cloud).messages
    if streamed:
        async with client.stream(model="large", max_tokens=50, messages=ASK, **more) as stream:
            message = await stream.get_final_message()
    else:
        message = await client.create(model="large", max_tokens=50, messages=ASK, **more)
    assert [(block.type, block.id, block.name, block.input) for block in message.content] == [
        ("tool_use", "call_1", "weather", {"city": "Paris"}),
        ("tool_use", "call_2", "weather", {"city": "Rome"}),
    ]
    assert message.stop_reason == "tool_use"
    sent = upstream.requests[-1].json
    function = {"name": "weather", "description": "Of a city.", "parameters": WEATHER["input_schema"]}
    assert sent["tools"] == [{"type": "function", "function": function}]
    assert sent["tool_choice"] == "required"


async def test_results_of_tools_go_back(cloud, upstream):
    """The model's calls and the tools' results become chat messages in their order."""
    calls = [{"type": "tool_use", "id": f"call_{n}", "name": "weather", "input": {"n": n}} for n in (1, 2)]
    results = [
        {"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"},
        {"type": "tool_result", "tool_use_id": "call_2", "content": "no such city", "is_error": True},
        {"type": "text", "text": "And now?"},
    ]
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    messages = [
        *ASK,
        {"role": "assistant", "content": [thought, {"type": "text", "text": "I look."}, *calls]},
        {"role": "user", "content": results},
    ]
    await client_of(cloud).messages.create(model="large", max_tokens=50, messages=messages, tools=[WEATHER])
    sent = upstream.requests[-1].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user"]
    assert sent[1]["content"] == "I look."
    assert [json.loads(call["function"]["arguments"]) for call in sent[1]["tool_calls"]] == [{"n": 1}, {"n": 2}]
    assert sent[2] == {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    assert sent[3]["content"] == "Error: no such city"
    assert sent[4]["content"] == "And now?"


async def test_images(cloud, upstream):
    """An image's data and an image's URL both reach the backend."""
    data = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    url = {"type": "url", "url": "https://example.com/a.png"}
    content = [{"type": "image", "source": data}, {"type": "image", "source": url}, {"type": "text", "text": "?"}]
    await client_of(cloud).messages.create(
        model="large", max_tokens=50, messages=[{"role": "user", "content": content}]
    )
    sent = upstream.requests[-1].json["messages"][0]["content"]
    assert [part.get("image_url", {}).get("url") for part in sent] == [
        "data:image/png;base64,AAAA",
        "https://example.com/a.png",
        None,
    ]


async def test_structured_output(cloud, upstream):
    """A schema for the answer is the backend's `response_format`."""
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    await client_of(cloud).messages.create(
        model="large",
        max_tokens=50,
        messages=ASK,
        output_config={"format": {"type": "json_schema", "schema": schema}, "effort": "low"},
    )
    sent = upstream.requests[-1].json
    assert sent["response_format"]["json_schema"]["schema"] == schema
    assert sent["reasoning_effort"] == "low"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("asked", [False, True])
async def test_thinking_is_shown_to_who_asked_for_it(cloud, upstream, streamed, asked):
    """A backend's reasoning is a thinking block before the text, or nothing for clients that did not ask."""
    reasoning = {"role": "assistant", "content": "Paris.", "reasoning_content": "France, so"}
    choice = {"index": 0, "message": reasoning, "finish_reason": "stop"}
    chunk = {"choices": [{"index": 0, "delta": {"reasoning_content": "France, so"}}]}
    upstream.default = Script(text="Paris.", first_events=(json.dumps(chunk).encode(),))
    if not streamed:
        upstream.default = Script(body=json.dumps({"choices": [choice]}).encode())
    more = {"thinking": {"type": "enabled", "budget_tokens": 2000}} if asked else {}
    client = client_of(cloud).messages
    if streamed:
        async with client.stream(model="large", max_tokens=5000, messages=ASK, **more) as stream:
            message = await stream.get_final_message()
    else:
        message = await client.create(model="large", max_tokens=5000, messages=ASK, **more)
    assert [block.type for block in message.content] == (["thinking", "text"] if asked else ["text"])
    if asked:
        assert message.content[0].thinking == "France, so"
        assert upstream.requests[-1].json["reasoning_effort"] == "low"


async def test_count_tokens(cloud, upstream):
    """Counted without asking anybody; more text is more tokens; an unknown model is 404."""
    client = client_of(cloud).messages
    few = await client.count_tokens(model="large", messages=ASK)
    many = await client.count_tokens(model="large", messages=ASK, system="word " * 400, tools=[WEATHER])
    assert 5 < few.input_tokens < 40
    assert many.input_tokens > few.input_tokens + 300
    assert upstream.requests == []
    with pytest.raises(anthropic.NotFoundError):
        await client.count_tokens(model="huge", messages=ASK)


async def test_what_a_chat_backend_cannot_do_is_refused_by_name(cloud, upstream):
    """A field that chat has no word for is a 400 that names it; nothing is sent."""
    client = client_of(cloud).messages
    refused = {
        "tools[0]": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "messages[1]": {"messages": [*ASK, {"role": "assistant", "content": "The best answer is ("}]},
        "mcp_servers": {"extra_body": {"mcp_servers": [{"type": "url"}]}},
    }
    for field, more in refused.items():
        with pytest.raises(anthropic.BadRequestError) as failure:
            await client.create(**({"model": "large", "max_tokens": 5, "messages": ASK} | more))
        assert field in failure.value.body["error"]["message"]
        assert failure.value.body["error"]["param"] == field
    assert upstream.requests == []


async def test_errors_have_anthropics_shape(cloud, upstream, start_gateway):
    """Each status is the SDK's own exception, with type, message and request id; the backend's words are kept."""
    client = client_of(cloud)
    upstream.default = Script(status=500, body=b'{"error": {"message": "GPU fell off", "code": "gpu_gone"}}')
    with pytest.raises(anthropic.InternalServerError) as failure:
        await client.messages.create(model="large", max_tokens=5, messages=ASK)
    error = failure.value
    assert error.body["type"] == "error"
    assert error.body["error"] == {"type": "api_error", "message": "GPU fell off", "code": "gpu_gone"}
    assert error.request_id == error.body["request_id"]
    assert error.request_id.startswith("req-")
    with pytest.raises(anthropic.AuthenticationError) as failure:
        await client_of(cloud, api_key="fd-wrong").messages.create(model="large", max_tokens=5, messages=ASK)
    assert failure.value.type == "authentication_error"
    with pytest.raises(anthropic.NotFoundError) as failure:
        await client.messages.create(model="lerge", max_tokens=5, messages=ASK)
    assert failure.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError) as failure:
        await client.messages.create(model="large", max_tokens=0, messages=ASK)
    assert "max_tokens" in failure.value.message
    poor = await start_gateway(policy_text(upstream.base_url, budgets="budgets: [{tokens: 100, per: day}]"), edge=False)
    with pytest.raises(anthropic.RateLimitError) as failure:
        await client_of(poor, max_retries=2).messages.create(model="large", max_tokens=5, messages=ASK, system="x" * 99)
    assert failure.value.response.headers["x-should-retry"] == "false"


async def test_errors_outside_the_handlers_have_the_shape_too(cloud):
    """Wrong URLs, methods and bodies under `/v1/messages` speak Anthropic's schema; elsewhere OpenAI's."""
    headers = {"x-api-key": KEY}
    async with httpx.AsyncClient(base_url=cloud.url, headers=headers) as client:
        for method, path, status, kind in (
            ("GET", "/v1/messages", 405, "invalid_request_error"),
            ("POST", "/v1/messages/nowhere", 404, "not_found_error"),
            ("POST", "/v1/messages", 400, "invalid_request_error"),
        ):
            answer = await client.request(method, path, content=b"{")
            assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
            assert answer.json()["request_id"] == answer.headers["request-id"]
        too_large = await client.post("/v1/messages", content=b" " * (cloud.services.settings.body_limit_bytes + 1))
        assert (too_large.status_code, too_large.json()["error"]["type"]) == (413, "request_too_large")
        other = await client.post("/v1/nowhere")
        assert other.json()["error"]["code"] == "not_found"


async def test_a_stream_that_is_cut_raises_in_the_client(cloud, upstream):
    """A backend that dies in mid-answer is an `error` event: the SDK raises, and shows no complete message."""
    upstream.default = Script(chunks=8, cut_after=3)
    seen = []
    with pytest.raises(anthropic.APIStatusError) as failure:  # noqa: PT012 - the error comes in mid-loop
        async with client_of(cloud).messages.stream(model="large", max_tokens=50, messages=ASK) as stream:
            async for text in stream.text_stream:
                seen.append(text)  # noqa: PERF401 - an extended list would be lost with the error
    assert len(seen) == 3
    assert failure.value.body["error"]["code"] == "backend_cut"


async def test_drafts_change_nothing_in_what_the_sdk_shows(gateway, upstream):
    """With drafts on, the helper sees the same message; a raw reader finds them on pings, and one verdict."""
    upstream.default = Script(text="Paris.", think_s=1.5)
    more = {"extra_body": {"draft": "frames"}}
    async with client_of(gateway).messages.stream(model="large", max_tokens=50, messages=ASK, **more) as stream:
        message = await stream.get_final_message()
    assert [block.text for block in message.content] == ["Paris."]
    body = {"model": "large", "max_tokens": 50, "messages": ASK, "stream": True, "draft": "frames"}
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(f"{gateway.url}/v1/messages", json=body, headers={"x-api-key": KEY})
    events = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    pings = [json.loads(data.removeprefix("data: ")) for name, data in events if name == "event: ping"]
    states = [ping["draft"]["state"] for ping in pings if "draft" in ping]
    assert set(states[:-2]) == {"partial"}
    assert states[-2] == "complete"
    assert states[-1] in {"confirmed", "revised", "replaced"}
    assert "draft" not in upstream.requests[-1].json
    plain = await client_of(gateway).messages.create(model="large", max_tokens=50, messages=ASK, **more)
    assert plain.content[0].text == "Paris."
    assert plain.model_extra["draft"]["state"] in {"confirmed", "revised", "replaced"}


async def test_the_real_edge_answers_messages(gateway):
    """A model on the edge gives a message of its own, plain and streamed."""
    client = client_of(gateway).messages
    plain = await client.create(model="small", max_tokens=12, messages=ASK, system="Be brief.")
    assert plain.content[0].text
    assert plain.stop_reason in {"end_turn", "max_tokens"}
    assert 0 < plain.usage.output_tokens <= 12
    async with client.stream(model="small", max_tokens=12, messages=ASK) as stream:
        message = await stream.get_final_message()
    assert message.content[0].text
    with pytest.raises(anthropic.BadRequestError):
        await client.create(model="small", max_tokens=12, messages=ASK, tools=[WEATHER])


async def test_a_client_that_leaves_ends_the_backend(cloud, upstream):
    """Closing the stream cancels the backend's work."""
    upstream.default = Script(chunks=500, delay_s=0.05)
    async with client_of(cloud).messages.stream(model="large", max_tokens=50, messages=ASK) as stream:
        async for _ in stream.text_stream:
            break
    async with asyncio.timeout(3):
        while upstream.open:
            await asyncio.sleep(0.02)
    assert upstream.disconnects


async def test_a_cached_answer_keeps_its_tool_calls(start_gateway, upstream):
    """What the cache replays is the whole message, in either form, calls included."""
    route = "mode: cloud_only\n    models: [large]\n    cache: {ttl: 1h}"
    gateway = await start_gateway(policy_text(upstream.base_url, route=route), edge=False)
    upstream.default = Script(text="I look.", tool_calls=[PARIS], finish_reason="tool_calls")
    client = client_of(gateway).messages
    asked = {"model": "large", "max_tokens": 50, "messages": ASK, "tools": [WEATHER], "extra_body": {"temperature": 0}}
    first = await client.create(**asked)
    async with asyncio.timeout(3):
        while (again := await client.with_raw_response.create(**asked)).headers["x-firstdraft-cache"] != "hit":
            await asyncio.sleep(0.02)
    assert (await again.parse()).content == first.content
