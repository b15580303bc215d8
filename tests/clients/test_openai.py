"""The real `openai` package against a whole gateway: real edge, real store, scripted backend."""

import asyncio
import json

import openai
import pytest
from pydantic import BaseModel

from tests.gateway_fixture import KEY, policy_text
from tests.upstream.script import Script

ASK = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
DRAFT_ROUTE = "mode: draft_refine\n    models: [large]\n    fallback: [small]\n    draft: {max_tokens: 24}"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


def client_of(gateway, key=KEY, **more):
    return openai.AsyncOpenAI(base_url=gateway.base_url, api_key=key, max_retries=0, **more)


@pytest.fixture
async def gateway(start_gateway, upstream):
    return await start_gateway(policy_text(upstream.base_url, route=DRAFT_ROUTE))


async def test_plain_answer_is_the_backends(gateway, upstream):
    """An unmodified client gets the backend's answer, unknown fields included."""
    upstream.default = Script(text="Paris.", extra={"system_fingerprint": "fp_1", "x_new_field": {"a": 1}})
    answer = await client_of(gateway).chat.completions.create(model="large", messages=ASK, extra_body={"zz_new": [1]})
    assert answer.choices[0].message.content == "Paris."
    assert answer.system_fingerprint == "fp_1"
    assert answer.model_extra["x_new_field"] == {"a": 1}
    assert answer.usage.total_tokens > 0
    assert answer._request_id.startswith("req-")
    sent = upstream.requests[-1].json
    assert (sent["zz_new"], sent["model"]) == ([1], "scripted")
    assert upstream.requests[-1].headers["authorization"] == "Bearer sk-upstream"


async def test_stream_without_usage_asked_has_no_empty_choices(gateway, upstream):
    """The naive loop over `chunk.choices[0].delta.content` never meets a chunk without choices."""
    upstream.default = Script(chunks=5)
    stream = await client_of(gateway).chat.completions.create(model="large", messages=ASK, stream=True)
    pieces = [chunk.choices[0].delta.content async for chunk in stream]
    assert any(pieces)
    assert upstream.requests[-1].json["stream_options"]["include_usage"] is True


async def test_stream_with_usage_asked_ends_with_it(gateway, upstream):
    """`include_usage` gives one last chunk with usage and no choices."""
    upstream.default = Script(chunks=3)
    options = {"include_usage": True}
    client = client_of(gateway)
    stream = await client.chat.completions.create(model="large", messages=ASK, stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens > 0
    assert all(chunk.choices for chunk in chunks[:-1])


async def test_draft_frames_come_before_the_final_and_end_in_a_verdict(gateway, upstream):
    """With one flag: partial frames, complete, one verdict not later than the finish; the loop still sees the final."""
    upstream.default = Script(text="Paris.", think_s=1.5)
    client = client_of(gateway)
    stream = await client.chat.completions.create(
        model="large", messages=ASK, stream=True, extra_body={"draft": "frames"}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == "Paris."
    frames = [chunk.model_extra["draft"] for chunk in chunks if "draft" in (chunk.model_extra or {})]
    states = [frame["state"] for frame in frames]
    assert states[-2] == "complete"
    assert states[-1] in {"confirmed", "revised", "replaced"}
    assert set(states[:-2]) == {"partial"}
    assert [frame["seq"] for frame in frames] == list(range(len(frames)))
    assert 0 <= frames[-1]["similarity"] <= 1
    assert frames[-2]["ttft_s"] > 0
    assert frames[-2]["tokens"] > 0
    first_content = next(i for i, chunk in enumerate(chunks) if chunk.choices[0].delta.content)
    first_frame = next(i for i, chunk in enumerate(chunks) if "draft" in (chunk.model_extra or {}))
    assert first_frame < first_content
    assert len({chunk.id for chunk in chunks}) == 1
    finish = next(i for i, chunk in enumerate(chunks) if chunk.choices[0].finish_reason)
    verdict = max(i for i, chunk in enumerate(chunks) if "draft" in (chunk.model_extra or {}))
    assert verdict < finish
    assert sum(1 for chunk in chunks if chunk.choices[0].delta.role) == 1


async def test_draft_as_reasoning_for_uis_that_show_thinking(gateway, upstream):
    """`reasoning`: the draft is `delta.reasoning_content`, the content is the final."""
    upstream.default = Script(text="Paris.", think_s=1.0)
    stream = await client_of(gateway).chat.completions.create(
        model="large", messages=ASK, stream=True, extra_body={"draft": "reasoning"}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Paris."
    assert "".join((chunk.choices[0].delta.model_extra or {}).get("reasoning_content", "") for chunk in chunks)
    assert not any("draft" in (chunk.model_extra or {}) for chunk in chunks)


async def test_plain_answer_with_frames_has_a_draft_object(gateway, upstream):
    """Not streamed: the body is the final, with the draft's text and verdict beside it."""
    upstream.default = Script(text="Paris.", think_s=1.0)
    answer = await client_of(gateway).chat.completions.create(
        model="large", messages=ASK, extra_body={"draft": "frames"}
    )
    assert answer.choices[0].message.content == "Paris."
    draft = answer.model_extra["draft"]
    assert draft["state"] in {"confirmed", "revised", "replaced"}
    assert draft["text"]


async def test_stream_helper_sees_an_ordinary_completion(gateway, upstream):
    """The `.stream()` helper accumulates the same answer with drafts on."""
    upstream.default = Script(text="Paris it is.", chunks=6, think_s=0.8)
    async with client_of(gateway).chat.completions.stream(
        model="large", messages=ASK, extra_body={"draft": "frames"}
    ) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert final.choices[0].message.content.startswith("Paris")
    assert final.choices[0].finish_reason == "stop"


async def test_edge_only_model_answers_with_the_real_edge(gateway):
    """A model on the edge streams text, a finish reason and usage of its own."""
    client = client_of(gateway)
    options = {"include_usage": True}
    stream = await client.chat.completions.create(
        model="small", messages=ASK, stream=True, max_tokens=12, stream_options=options
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in {"stop", "length"}
    assert 0 < chunks[-1].usage.completion_tokens <= 12
    plain = await client.chat.completions.create(model="small", messages=ASK, max_tokens=12)
    assert plain.choices[0].message.content
    assert plain.usage.prompt_tokens > 0


async def test_tools_pass_both_ways_and_get_no_draft(gateway, upstream):
    """Tool definitions reach the backend, calls reach the client, and the edge stays out of it."""
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
    upstream.default = Script(tool_calls=[call], finish_reason="tool_calls")
    response = await client_of(gateway).chat.completions.with_raw_response.create(
        model="large", messages=ASK, tools=TOOLS, extra_body={"draft": "frames"}
    )
    answer = response.parse()
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city":"Paris"}'
    assert response.headers["x-firstdraft-no-draft"] == "tools"
    assert upstream.requests[-1].json["tools"] == TOOLS


async def test_parse_with_a_pydantic_model(gateway, upstream):
    """Structured output: the schema reaches the backend, its JSON becomes the model."""

    class City(BaseModel):
        name: str

    upstream.default = Script(text='{"name": "Paris"}')
    answer = await client_of(gateway).chat.completions.parse(model="large", messages=ASK, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Paris")
    assert upstream.requests[-1].json["response_format"]["type"] == "json_schema"


async def test_images_n_and_logprobs_reach_the_backend(gateway, upstream):
    """What the gateway does not serve itself passes untouched."""
    content = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    await client_of(gateway).chat.completions.create(
        model="large", messages=[{"role": "user", "content": content}], n=2, logprobs=True, top_logprobs=3
    )
    sent = upstream.requests[-1].json
    assert sent["messages"][0]["content"] == content
    assert (sent["n"], sent["logprobs"], sent["top_logprobs"]) == (2, True, 3)


async def test_nothing_of_a_request_is_dropped_or_rewritten(gateway, upstream):
    """What gateways like to lose reaches the backend: roles, metadata, user, store, efforts, logprobs, what is new."""
    upstream.default = Script(text="Paris.")
    sent = {
        "messages": [
            {"role": "developer", "content": "Be brief.", "name": "boss"},
            {"role": "user", "content": [{"type": "text", "text": "?", "cache_control": {"type": "ephemeral"}}]},
        ],
        "metadata": {"team": "a"},
        "user": "u-1",
        "store": True,
        "reasoning_effort": "low",
        "logprobs": True,
        "top_logprobs": 3,
        "logit_bias": {"50256": -100},
        "parallel_tool_calls": False,
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "verbosity": "low",
        "modalities": ["text"],
        "web_search_options": {"search_context_size": "low"},
        "seed": 7,
    }
    more = {"min_p": 0.1, "chat_template_kwargs": {"enable_thinking": False}, "provider": {"order": ["a"]}}
    await client_of(gateway).chat.completions.create(model="large", **sent, extra_body=more)
    received = upstream.requests[-1].json
    assert {name: received[name] for name in {**sent, **more}} == {**sent, **more}


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_of_the_backend_is_streamed(gateway, upstream, field):
    """Thoughts beside the text, under either name that servers use, reach the client piece by piece."""
    head = '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
    pieces = [{field: "France, "}, {field: "so Paris."}, {"content": "Paris."}]
    writes = [f'data: {head}{json.dumps(piece)},"finish_reason":null}}]}}\n\n'.encode() for piece in pieces]
    upstream.default = Script(
        raw=(*writes, f'data: {head}{{}},"finish_reason":"stop"}}]}}\n\ndata: [DONE]\n\n'.encode())
    )
    stream = await client_of(gateway).chat.completions.create(model="large", messages=ASK, stream=True)
    deltas = [chunk.choices[0].delta async for chunk in stream]
    assert "".join(getattr(delta, field, None) or "" for delta in deltas) == "France, so Paris."
    assert "".join(delta.content or "" for delta in deltas) == "Paris."


async def test_models_are_listed_and_found(gateway):
    """`models.list` and `models.retrieve` know the policy's public names."""
    client = client_of(gateway)
    assert [model.id async for model in client.models.list()] == ["large", "small"]
    assert (await client.models.retrieve("large")).id == "large"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("huge")


async def test_wrong_and_missing_keys_are_401(gateway, upstream):
    """Nobody gets in without a key that policy knows, and nothing reaches a backend."""
    with pytest.raises(openai.AuthenticationError) as failure:
        await client_of(gateway, key="fd-wrong").chat.completions.create(model="large", messages=ASK)
    assert failure.value.code == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError):
        await client_of(gateway, default_headers={"authorization": ""}).chat.completions.create(
            model="large", messages=ASK
        )
    assert upstream.requests == []


async def test_unknown_model_is_404_and_names_the_nearest(gateway):
    """A misspelt model gets OpenAI's status and code, and a hint."""
    with pytest.raises(openai.NotFoundError) as failure:
        await client_of(gateway).chat.completions.create(model="lerge", messages=ASK)
    assert (failure.value.code, failure.value.param) == ("model_not_found", "model")
    assert "large" in failure.value.message


async def test_broken_backend_is_a_clear_error(start_gateway, upstream):
    """A backend's 500 arrives as one, with its own message, and a dead one as 502."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    upstream.default = Script(status=500, body=b'{"error": {"message": "GPU fell off", "type": "server_error"}}')
    with pytest.raises(openai.InternalServerError) as failure:
        await client_of(gateway).chat.completions.create(model="large", messages=ASK)
    assert failure.value.status_code == 500
    gone = await start_gateway(policy_text("http://127.0.0.1:9/v1"), edge=False)
    with pytest.raises(openai.InternalServerError) as failure:
        await client_of(gone).chat.completions.create(model="large", messages=ASK)
    assert (failure.value.status_code, failure.value.code) == (502, "backend_unreachable")


async def test_the_draft_is_promoted_when_the_backend_is_gone(start_gateway, upstream):
    """With the edge as fallback, the draft that is on the screen becomes the answer."""
    route = DRAFT_ROUTE.replace("24", "64")
    gateway = await start_gateway(policy_text("http://127.0.0.1:9/v1", route=route))
    stream = await client_of(gateway).chat.completions.create(
        model="large", messages=ASK, stream=True, max_tokens=16, extra_body={"draft": "frames"}
    )
    chunks = [chunk async for chunk in stream]
    states = [chunk.model_extra["draft"]["state"] for chunk in chunks if "draft" in (chunk.model_extra or {})]
    assert states[-1] == "promoted"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


async def test_a_stream_that_is_cut_raises_in_the_client(start_gateway, upstream):
    """No silent end: a backend that dies in mid-answer is an error event, and no `[DONE]`."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    upstream.default = Script(chunks=8, cut_after=3)
    stream = await client_of(gateway).chat.completions.create(model="large", messages=ASK, stream=True)
    with pytest.raises(openai.APIError) as failure:
        _ = [chunk async for chunk in stream]
    assert failure.value.code == "backend_cut"


async def test_spent_budget_is_429_and_is_not_retried(start_gateway, upstream):
    """`insufficient_quota`, with `x-should-retry: false`: one request, one refusal."""
    gateway = await start_gateway(
        policy_text(upstream.base_url, budgets="budgets: [{tokens: 2000, per: day}]"), edge=False
    )
    client = openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=3)
    upstream.default = Script(chunks=1900, usage="chunk")
    stream = await client.chat.completions.create(model="large", messages=ASK, max_tokens=5000, stream=True)
    assert len([chunk async for chunk in stream]) > 1900
    assert upstream.requests[-1].json["max_tokens"] < 2000
    with pytest.raises(openai.RateLimitError) as failure:
        await client.chat.completions.create(model="large", messages=ASK)
    assert failure.value.code == "insufficient_quota"
    assert failure.value.response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


async def test_spent_budget_downgrades_where_the_route_says_so(start_gateway, upstream):
    """`when_budget_is_spent: edge_only`: the edge answers for nothing."""
    route = "mode: cloud_only\n    models: [large]\n    when_budget_is_spent: edge_only"
    gateway = await start_gateway(
        policy_text(upstream.base_url, route=route, budgets="budgets: [{tokens: 100, per: day}]")
    )
    response = await client_of(gateway).chat.completions.with_raw_response.create(
        model="large", messages=ASK, max_tokens=8
    )
    assert response.headers["x-firstdraft-mode"] == "edge_only"
    assert response.headers["x-firstdraft-budget"] == "downgraded"
    assert response.parse().choices[0].message.content
    assert upstream.requests == []


async def test_cache_replays_plain_and_streamed(start_gateway, upstream):
    """Every further identical request is a hit, plain or streamed: same text, usage, and no call to the backend."""
    route = "mode: cloud_only\n    models: [large]\n    cache: {ttl: 1h}"
    gateway = await start_gateway(policy_text(upstream.base_url, route=route), edge=False)
    upstream.default = Script(chunks=7)
    client = client_of(gateway).chat.completions.with_raw_response
    for stream in (False, True):
        more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        texts = []
        for expected in ("hit" if stream else "miss", "hit"):
            response = await client.create(model="large", messages=ASK, temperature=0, **more)
            assert response.headers["x-firstdraft-cache"] == expected
            answer = response.parse()
            if stream:
                texts.append([chunk.to_json() async for chunk in answer])
            else:
                texts.append(answer.to_json())
            await asyncio.sleep(0.05)
        assert texts[0] == texts[1]
    assert len(upstream.requests) == 1
    warm = await client.create(model="large", messages=ASK, temperature=0.7)
    assert warm.headers["x-firstdraft-cache"] == "bypass"


async def test_sync_client_works_too(gateway, upstream):
    """The synchronous SDK, in a thread as applications run it."""
    upstream.default = Script(text="Paris.")

    def ask() -> str:
        with openai.OpenAI(base_url=gateway.base_url, api_key=KEY) as client:
            stream = client.chat.completions.create(model="large", messages=ASK, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert await asyncio.to_thread(ask) == "Paris."


async def test_labels_hold_data_at_the_edge(gateway, upstream):
    """A label that the client names narrows where the request may go: the draft's edge answers alone."""
    response = await client_of(gateway).chat.completions.with_raw_response.create(
        model="large", messages=ASK, max_tokens=8, metadata={"labels": "health"}
    )
    assert response.headers["x-firstdraft-mode"] == "edge_only"
    assert response.parse().choices[0].message.content
    assert upstream.requests == []


async def test_log_probabilities_of_the_edges_own_answer(gateway, upstream):
    """As OpenAI gives them, streamed and whole: each token's bytes make the text, alternatives are in order."""
    client = client_of(gateway)
    asked = {"model": "small", "messages": ASK, "max_tokens": 8, "logprobs": True, "top_logprobs": 3}
    answer = (await client.chat.completions.create(**asked)).choices[0]
    told = answer.logprobs.content
    assert b"".join(bytes(token.bytes) for token in told).decode() == answer.message.content
    for token in told:
        assert len(token.top_logprobs) == 3
        assert [other.logprob for other in token.top_logprobs] == sorted(
            (other.logprob for other in token.top_logprobs), reverse=True
        )
        assert token.logprob <= 0
    stream = await client.chat.completions.create(**asked, stream=True)
    chunks = [chunk.choices[0] async for chunk in stream]
    streamed = [token for chunk in chunks if chunk.logprobs for token in chunk.logprobs.content]
    assert b"".join(bytes(token.bytes) for token in streamed).decode() == "".join(
        chunk.delta.content or "" for chunk in chunks
    )
    with pytest.raises(openai.APIStatusError) as refused:
        await client.chat.completions.create(**(asked | {"top_logprobs": 21}))
    assert "top_logprobs" in refused.value.message
    assert not upstream.requests


async def test_log_probabilities_survive_a_fallback_to_the_edge(gateway, upstream):
    """A backend that fails is replaced by the edge, which tells them too; a draft is not made."""
    upstream.default = Script(status=503)
    answer = await client_of(gateway).chat.completions.create(
        model="large", messages=ASK, max_tokens=4, logprobs=True, extra_body={"draft": "frames"}
    )
    assert answer.choices[0].logprobs.content
    assert not getattr(answer, "draft", None)
