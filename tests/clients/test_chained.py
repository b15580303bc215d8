"""A gateway as the backend of another one: with drafts off, it is one more OpenAI-compatible server."""

import openai
import pytest

from tests.gateway_fixture import KEY, policy_text
from tests.upstream.script import Script

ASK = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}


@pytest.fixture
async def front(start_gateway, upstream, tmp_path):
    """The client's gateway, which asks a second one, which asks the backend."""
    behind = await start_gateway(policy_text(upstream.base_url), edge=False)
    key = tmp_path / "key"
    key.write_text(KEY)
    policy = policy_text(behind.base_url).replace("${UPSTREAM_KEY}", f"file:{key}")
    return await start_gateway(policy.replace("model: scripted,", "model: large,"), edge=False)


def client_of(gateway):
    return openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)


async def test_answers_pass_both_plain_and_streamed(front, upstream):
    """Text, calls, usage and unknown fields come through two gateways as through one."""
    upstream.default = Script(text="Paris.", tool_calls=[CALL], finish_reason="tool_calls", extra={"x_new": {"a": 1}})
    asked = {"model": "large", "messages": ASK, "tools": [WEATHER]}
    answer = await client_of(front).chat.completions.create(**asked, extra_body={"zz_new": [1]})
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city": "Paris"}'
    assert answer.model_extra["x_new"] == {"a": 1}
    assert upstream.requests[-1].json["zz_new"] == [1]
    options = {"include_usage": True}
    stream = await client_of(front).chat.completions.create(**asked, stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Paris."
    assert chunks[-2].choices[0].finish_reason == "tool_calls"
    assert chunks[-1].usage.total_tokens == answer.usage.total_tokens > 0


async def test_errors_keep_their_status_and_code(front, upstream):
    """A refusal of the backend behind both is the client's; a 429 keeps its time."""
    upstream.default = Script(
        status=429,
        headers={"retry-after": "7"},
        body=b'{"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded", "param": null}}',
    )
    with pytest.raises(openai.RateLimitError) as failure:
        await client_of(front).chat.completions.create(model="large", messages=ASK)
    assert failure.value.code == "rate_limit_exceeded"
    assert failure.value.response.headers["retry-after"] == "7"
    upstream.default = Script(text="Paris it is.", cut_after=1)
    with pytest.raises(openai.APIError):
        _ = [
            chunk
            async for chunk in await client_of(front).chat.completions.create(model="large", messages=ASK, stream=True)
        ]


async def test_other_schemas_pass_too(front, upstream):
    """Responses on the way in are chat between the gateways."""
    upstream.default = Script(text="Paris.")
    response = await client_of(front).responses.create(model="large", input="?", store=False)
    assert response.output_text == "Paris."
