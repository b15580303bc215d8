"""A backend that speaks Anthropic's Messages, asked by the real SDKs of every surface."""

import json

import anthropic
import httpx
import openai
import pytest

from tests.gateway_fixture import KEY, policy_text
from tests.upstream.script import Script
from tests.upstream.scripted import ScriptedUpstream

ASK = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
THOUGHT = {"type": "thinking", "thinking": "France, so", "signature": "c2ln"}
PARIS = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
ROME = {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
CALLS = Script(text="I look.", tool_calls=[PARIS, ROME], finish_reason="tool_use")
DRAFT_ROUTE = "mode: draft_refine\n    models: [large]\n    fallback: [small]\n    draft: {max_tokens: 24}"


def policy(upstream, **more):
    return policy_text(upstream.base_url, **more).replace("type: openai\n", "type: anthropic\n", 1)


@pytest.fixture
async def gateway(start_gateway, upstream):
    upstream.default = Script(text="Paris it is.", finish_reason="end_turn")
    return await start_gateway(policy(upstream), edge=False)


def anthropic_of(gateway):
    return anthropic.AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0)


def openai_of(gateway):
    return openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)


async def test_messages_pass_byte_for_byte(gateway, upstream):
    """Same schema on both sides: what the gateway does not know passes both ways, streamed data untouched."""
    known = {"model": "large", "max_tokens": 50, "messages": ASK}
    asked = {**known, "zz_new": [1], "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}
    headers = {"x-api-key": KEY}
    async with httpx.AsyncClient() as client:
        upstream.default = Script(body=(body := b'{"type": "message", "zz": 1e0, "content": [], "stop_reason": "x"}'))
        plain = await client.post(f"{gateway.url}/v1/messages", json=asked, headers=headers)
        assert plain.content == body
        assert upstream.requests[-1].json == {**asked, "model": "scripted"}
        sent = upstream.requests[-1].headers
        assert (sent["x-api-key"], sent["anthropic-version"]) == ("sk-upstream", "2023-06-01")
        assert "authorization" not in sent
        upstream.default = Script(text="Paris it is.", finish_reason="end_turn", extra={"zz": 1, "blocks": [THOUGHT]})
        streamed = await client.post(f"{gateway.url}/v1/messages", json={**asked, "stream": True}, headers=headers)
        direct = await client.post(f"{upstream.base_url}/messages", json={**asked, "stream": True, "model": "scripted"})
    assert streamed.content == direct.content


async def test_a_message_with_thinking(gateway, upstream):
    """Thinking and its signature arrive as the provider made them, plain and streamed."""
    upstream.default = Script(text="Paris.", finish_reason="end_turn", extra={"blocks": [THOUGHT]})
    client = anthropic_of(gateway).messages
    asked = {"model": "large", "max_tokens": 5000, "messages": ASK}
    plain = await client.create(**asked)
    async with client.stream(**asked) as stream:
        streamed = await stream.get_final_message()
    for message in (plain, streamed):
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert (message.content[0].thinking, message.content[0].signature) == ("France, so", "c2ln")


@pytest.mark.parametrize("streamed", [False, True])
async def test_chat_clients_get_a_chat_completion(gateway, upstream, streamed):
    """Text, reasoning, calls, finish reason and usage in chat's words; the request in Anthropic's."""
    upstream.default = Script(**{**_members(CALLS), "extra": {"blocks": [THOUGHT]}})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "?"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [PARIS]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "user", "content": "And now?"},
    ]
    client = openai_of(gateway).chat.completions
    asked = {"model": "large", "messages": messages, "tools": [FUNCTION], "tool_choice": "required", "stop": ["\n"]}
    if streamed:
        async with client.stream(**asked, stream_options={"include_usage": True}) as stream:
            async for _ in stream:
                pass
            answer = await stream.get_final_completion()
    else:
        answer = await client.create(**asked)
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("I look.", "tool_calls")
    found = [(call.id, json.loads(call.function.arguments)) for call in choice.message.tool_calls]
    assert found == [("call_1", {"city": "Paris"}), ("call_2", {"city": "Rome"})]
    assert choice.message.model_extra["reasoning_content"] == "France, so"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 5)
    assert answer.usage.prompt_tokens_details.cached_tokens == 4
    sent = upstream.requests[-1].json
    assert sent["system"] == [{"type": "text", "text": "Be brief."}]
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert sent["messages"][0]["content"][1]["source"] == {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    assert [block["type"] for block in sent["messages"][2]["content"]] == ["tool_result", "text"]
    assert sent["tools"] == [{"name": "weather", "input_schema": WEATHER}]
    assert (sent["tool_choice"], sent["max_tokens"], sent["stop_sequences"]) == ({"type": "any"}, 1000, ["\n"])


def _members(script):
    return {name: getattr(script, name) for name in script.__struct_fields__}


async def test_responses_clients_get_a_response(gateway, upstream):
    """The hub joins any surface with any backend."""
    upstream.default = CALLS
    response = await openai_of(gateway).responses.create(model="large", input="?", instructions="Be brief.")
    assert response.output_text == "I look."
    assert [item.type for item in response.output] == ["message", "function_call", "function_call"]
    assert upstream.requests[-1].json["system"] == [{"type": "text", "text": "Be brief."}]


async def test_what_messages_cannot_do_is_refused_by_name(gateway, upstream):
    """Fields of chat that Messages has no word for are a 400 that names them; nothing is sent."""
    client = openai_of(gateway).chat.completions
    refused = {
        "seed": {"seed": 3},
        "n": {"n": 2},
        "temperature": {"temperature": 1.5},
        "logit_bias": {"logit_bias": {"1": 5}},
        "response_format": {"response_format": {"type": "json_object"}},
        "guided_regex": {"extra_body": {"guided_regex": "a+"}},
    }
    for field, more in refused.items():
        with pytest.raises(openai.BadRequestError) as failure:
            await client.create(model="large", messages=ASK, **more)
        assert failure.value.param == field
    with pytest.raises(openai.BadRequestError):
        await openai_of(gateway).embeddings.create(model="large", input="x")
    assert upstream.requests == []


async def test_a_field_that_the_first_deployment_has_no_word_for_goes_to_the_next(start_gateway, upstream):
    """What one deployment cannot say is no error while another can: it is asked instead, with the field."""
    async with ScriptedUpstream() as second:
        upstream.default, second.default = Script(text="Not this."), Script(text="Paris.")
        gateway = await start_gateway(policy(upstream, second_url=second.base_url), edge=False)
        answer = await openai_of(gateway).chat.completions.create(model="large", messages=ASK, seed=3)
        assert answer.choices[0].message.content == "Paris."
        assert second.requests[-1].json["seed"] == 3
        assert upstream.requests == []


async def test_a_field_is_dropped_where_policy_says_so_and_the_answer_says_it(start_gateway, upstream):
    """`drop` on a deployment leaves a field out; the response names what was left out, plain and streamed."""
    upstream.default = Script(text="Paris it is.", finish_reason="end_turn")
    text = policy(upstream, route="mode: cloud_only\n    models: [large]\n    cache: {ttl: 1h, temperature: any}")
    dropping = text.replace(
        "max_output_tokens: 1000", "max_output_tokens: 1000, drop: [seed, logit_bias, verbosity]", 1
    )
    gateway = await start_gateway(dropping, edge=False)
    client = openai_of(gateway)
    for _ in range(2):  # such an answer is not kept for the next one
        raw = await client.chat.completions.with_raw_response.create(
            model="large", messages=ASK, seed=3, logit_bias={"1": 5}, temperature=0
        )
        assert raw.headers["x-firstdraft-dropped"] == "logit_bias, seed"
        assert raw.parse().choices[0].message.content == "Paris it is."
    assert "seed" not in upstream.requests[-1].json
    raw = await client.responses.with_raw_response.create(model="large", input="?", text={"verbosity": "low"})
    assert raw.headers["x-firstdraft-dropped"] == "verbosity"
    raw = await client.chat.completions.with_raw_response.create(model="large", messages=ASK, seed=3, stream=True)
    assert raw.headers["x-firstdraft-dropped"] == "seed"
    raw = await client.chat.completions.with_raw_response.create(model="large", messages=ASK)
    assert "x-firstdraft-dropped" not in raw.headers
    with pytest.raises(openai.BadRequestError) as failure:
        await client.chat.completions.create(model="large", messages=ASK, n=2)
    assert failure.value.param == "n"


async def test_errors_in_each_clients_shape(gateway, upstream):
    """Anthropic's error passes unchanged to its clients, and is told to chat's in OpenAI's shape."""
    body = b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_x"}'
    upstream.default = Script(status=529, body=body)
    with pytest.raises(anthropic.APIStatusError) as theirs:
        await anthropic_of(gateway).messages.create(model="large", max_tokens=5, messages=ASK)
    assert (theirs.value.status_code, theirs.value.body["request_id"]) == (529, "req_x")
    with pytest.raises(openai.APIStatusError) as ours:
        await openai_of(gateway).chat.completions.create(model="large", messages=ASK)
    assert (ours.value.status_code, ours.value.type, ours.value.body["message"]) == (
        529,
        "overloaded_error",
        "Overloaded",
    )
    upstream.default = Script(text="Paris", error_event={"type": "overloaded_error", "message": "Overloaded"})
    with pytest.raises(anthropic.APIStatusError) as theirs:
        async with anthropic_of(gateway).messages.stream(model="large", max_tokens=5, messages=ASK) as stream:
            await stream.get_final_message()
    assert theirs.value.type == "overloaded_error"
    upstream.default = Script(text="Paris it is.", cut_after=1)
    with pytest.raises(openai.APIError) as ours:
        _ = [
            x async for x in await openai_of(gateway).chat.completions.create(model="large", messages=ASK, stream=True)
        ]
    assert ours.value.code == "backend_cut"


async def test_drafts_beside_a_relayed_message(start_gateway, upstream):
    """The draft rides on pings between the backend's own events; the SDK shows the backend's message."""
    upstream.default = Script(text="Paris it is.", finish_reason="end_turn", think_s=1.2)
    gateway = await start_gateway(policy(upstream, route=DRAFT_ROUTE))
    asked = {"model": "large", "max_tokens": 50, "messages": ASK}
    async with anthropic_of(gateway).messages.stream(**asked, extra_body={"draft": "frames"}) as stream:
        message = await stream.get_final_message()
    assert message.content[0].text == "Paris it is."
    assert message.id == "msg_theirs"
    async with httpx.AsyncClient(timeout=30) as client:
        body = {**asked, "stream": True, "draft": "frames"}
        answer = await client.post(f"{gateway.url}/v1/messages", json=body, headers={"x-api-key": KEY})
    assert b'"state":"complete"' in answer.content
    assert answer.content.index(b'"similarity"') < answer.content.index(b"message_delta")
