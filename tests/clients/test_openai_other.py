"""The `openai` package's embeddings and legacy completions against a whole gateway: real edge, scripted backend."""

import asyncio

import httpx
import openai
import pytest

from tests.gateway_fixture import KEY, policy_text
from tests.upstream.script import Script

CACHED = "mode: cloud_only\n    models: [large]\n    cache: {ttl: 1h}"


def client_of(gateway):
    return openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)


@pytest.fixture
async def cloud(start_gateway, upstream):
    return await start_gateway(policy_text(upstream.base_url), edge=False)


async def test_embeddings_as_the_sdk_asks_for_them(cloud, upstream):
    """The SDK asks for base64 and decodes it: the vectors are the backend's, to the last bit."""
    answer = await client_of(cloud).embeddings.create(model="large", input=["one", "two"], dimensions=3)
    assert [item.embedding for item in answer.data] == [[0.25, -0.5, 1.0]] * 2
    assert answer.usage.prompt_tokens == 11
    sent = upstream.requests[-1]
    assert sent.path == "/v1/embeddings"
    assert sent.json == {"model": "scripted", "input": ["one", "two"], "dimensions": 3, "encoding_format": "base64"}


async def test_embeddings_pass_byte_for_byte(cloud, upstream):
    """What the gateway does not know passes both ways; the body is not written anew."""
    body = b'{"object": "list",  "data": [{"index":0,"embedding":"AACAPg=="}], "zz": 1e0, "usage":{"prompt_tokens":3}}'
    upstream.default = Script(body=body)
    asked = {"model": "large", "input": [[1, 2, 3]], "zz_new": [1]}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{cloud.base_url}/embeddings", json=asked, headers=cloud.auth)
    assert answer.content == body
    assert upstream.requests[-1].json["zz_new"] == [1]


async def test_embeddings_are_cached_and_booked(start_gateway, upstream):
    """The second identical request is a hit; the first one was booked with its input tokens."""
    policy = policy_text(upstream.base_url, route=CACHED, budgets="budgets: [{tokens: 2000, per: day}]")
    gateway = await start_gateway(policy, edge=False)
    client = client_of(gateway).embeddings.with_raw_response
    first = await client.create(model="large", input="one")
    ledger, tenant = gateway.services.ledger, gateway.services.policy.current.tenants["acme"]
    await ledger._settler.flush(2.0)
    assert (await ledger.left("acme", tenant.limits))[0].left == 2000 - 11
    async with asyncio.timeout(3):
        while (again := await client.create(model="large", input="one")).headers["x-firstdraft-cache"] != "hit":
            await asyncio.sleep(0.02)
    assert again.content == first.content


async def test_embeddings_errors(cloud, upstream, start_gateway):
    """A wrong input is a 400 that names it, a backend without vectors a 502, and the edge says that it cannot."""
    client = client_of(cloud).embeddings
    with pytest.raises(openai.BadRequestError) as failure:
        await client.create(model="large", input=["one", {"a": 1}])
    assert failure.value.param == "input[1]"
    upstream.default = Script(body=b'{"object": "list", "data": []}')
    with pytest.raises(openai.InternalServerError) as failure:
        await client.create(model="large", input="one")
    assert failure.value.code == "backend_invalid_response"
    upstream.default = Script(status=404, body=b'{"error": {"message": "no such model", "code": "gone"}}')
    with pytest.raises(openai.NotFoundError) as failure:
        await client.create(model="large", input="one")
    assert failure.value.code == "gone"
    edge = await start_gateway(policy_text(upstream.base_url))
    with pytest.raises(openai.BadRequestError) as failure:
        await client_of(edge).embeddings.create(model="small", input="one")
    assert failure.value.param == "input"


async def test_plain_completion(cloud, upstream):
    """A prompt and its options reach the backend as they are; without a limit the API's own one holds."""
    upstream.default = Script(text=" Paris.", extra={"system_fingerprint": "fp_1"})
    answer = await client_of(cloud).completions.create(model="large", prompt="The capital", echo=True, logprobs=2)
    assert answer.choices[0].text == " Paris."
    assert answer.system_fingerprint == "fp_1"
    assert upstream.requests[-1].path == "/v1/completions"
    sent = upstream.requests[-1].json
    assert (sent["prompt"], sent["echo"], sent["logprobs"]) == ("The capital", True, 2)


async def test_streamed_completion(cloud, upstream):
    """Chunks pass as they come, and end with the usage for those who asked."""
    upstream.default = Script(chunks=4)
    client = client_of(cloud).completions
    stream = await client.create(
        model="large", prompt="The", stream=True, max_tokens=9, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert len("".join(chunk.choices[0].text for chunk in chunks[:-1]).split()) == 4
    assert chunks[-1].usage.completion_tokens == 4
    naive = await client.create(model="large", prompt="The", stream=True)
    assert all([chunk.choices async for chunk in naive])


async def test_completions_of_the_edge(start_gateway, upstream):
    """One prompt in words is served by anything that chats; options that chat does not have are refused by name."""
    gateway = await start_gateway(policy_text(upstream.base_url))
    client = client_of(gateway).completions
    answer = await client.create(model="small", prompt="The capital of France is", max_tokens=8)
    assert (answer.object, bool(answer.choices[0].text)) == ("text_completion", True)
    stream = await client.create(model="small", prompt="The capital of France is", max_tokens=8, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
    with pytest.raises(openai.BadRequestError) as failure:
        await client.create(model="small", prompt="The", suffix="end")
    assert failure.value.param == "suffix"


async def test_a_completion_that_is_cut_raises_and_one_that_is_left_ends(cloud, upstream):
    """No silent end in either direction."""
    client = client_of(cloud).completions
    upstream.default = Script(chunks=8, cut_after=3)
    stream = await client.create(model="large", prompt="The", stream=True)
    with pytest.raises(openai.APIError) as failure:
        _ = [chunk async for chunk in stream]
    assert failure.value.code == "backend_cut"
    upstream.default = Script(chunks=500, delay_s=0.05)
    stream = await client.create(model="large", prompt="The", stream=True)
    async for _ in stream:
        break
    await stream.close()
    async with asyncio.timeout(3):
        while upstream.open:
            await asyncio.sleep(0.02)


async def test_completions_of_the_edge_have_log_probabilities(start_gateway, upstream):
    """In the legacy shape, with as many alternatives as were asked for."""
    gateway = await start_gateway(policy_text(upstream.base_url))
    answer = await client_of(gateway).completions.create(model="small", prompt="One, two,", max_tokens=4, logprobs=2)
    told = answer.choices[0].logprobs
    assert "".join(told.tokens) == answer.choices[0].text
    assert told.text_offset[0] == 0
    assert all(len(others) == 2 for others in told.top_logprobs)
