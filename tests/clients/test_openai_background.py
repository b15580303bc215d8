"""The `openai` package's responses in the background, and completions that are fetched later."""

import asyncio
import time

import openai
import pytest

from tests.gateway_fixture import KEY, OTHER_KEY, policy_text
from tests.upstream.script import Script

ASK = "What is the capital of France? Answer in one word."


def client_of(gateway, key=KEY):
    return openai.AsyncOpenAI(base_url=gateway.base_url, api_key=key, max_retries=4)  # a busy store may say 503


@pytest.fixture
async def cloud(start_gateway, upstream):
    return await start_gateway(policy_text(upstream.base_url), edge=False)


async def until_over(client, response, seconds=15):
    """Poll as OpenAI's documentation does."""
    end = time.monotonic() + seconds
    while response.status in {"queued", "in_progress"}:
        assert time.monotonic() < end, response
        await asyncio.sleep(0.05)
        response = await client.responses.retrieve(response.id)
    return response


async def test_queued_then_completed(cloud, upstream):
    """A response in the background is queued at once, and has its output when it is polled long enough."""
    upstream.default = Script(text="Paris.", think_s=0.7)
    client = client_of(cloud)
    queued = await client.responses.create(model="large", input=ASK, background=True)
    assert (queued.status, queued.background, queued.output) == ("queued", True, [])
    early = await client.responses.retrieve(queued.id)
    assert early.status in {"queued", "in_progress"}
    done = await until_over(client, queued)
    assert (done.status, done.output_text, done.id, done.background) == ("completed", "Paris.", queued.id, True)
    assert done.usage.output_tokens > 0
    upstream.default = Script(text="About two million.")
    next_one = await client.responses.create(model="large", input="How many live there?", previous_response_id=done.id)
    assert next_one.output_text == "About two million."
    assert [message["content"] for message in upstream.requests[-1].json["messages"]][:2] == [ASK, "Paris."]


async def test_cancelled(cloud, upstream):
    """Cancelling ends the attempt at once; cancelling again, or what is over, changes nothing."""
    upstream.default = Script(text="Paris.", think_s=20)
    client = client_of(cloud)
    queued = await client.responses.create(model="large", input=ASK, background=True)
    while upstream.open == 0:
        await asyncio.sleep(0.01)
    cancelled = await client.responses.cancel(queued.id)
    assert cancelled.status == "cancelled"
    began = time.monotonic()
    while upstream.open:
        assert time.monotonic() - began < 3
        await asyncio.sleep(0.01)
    assert (await client.responses.cancel(queued.id)).status == "cancelled"
    assert (await client.responses.retrieve(queued.id)).status == "cancelled"
    upstream.default = Script(text="Paris.")
    done = await until_over(client, await client.responses.create(model="large", input=ASK, background=True))
    assert (await client.responses.cancel(done.id)).output_text == "Paris."


async def test_failed(cloud, upstream):
    """A response whose backend fails is `failed`, and says why."""
    upstream.default = Script(status=500, body=b'{"error": {"message": "broken", "type": "server_error"}}', think_s=0.3)
    client = client_of(cloud)
    failed = await until_over(client, await client.responses.create(model="large", input=ASK, background=True))
    assert failed.status == "failed"
    assert "broken" in failed.error.message


async def test_streamed_and_gone_on_with(cloud, upstream):
    """A stream can be left and read again from any event on, while it is made and afterwards: the same events."""
    upstream.default = Script(text="Paris it is, since long ago.", chunks=20, delay_s=0.05)
    client = client_of(cloud)
    seen = []
    async with await client.responses.create(model="large", input=ASK, background=True, stream=True) as stream:
        async for event in stream:
            seen.append(event)
            if event.sequence_number == 8:
                break
    assert seen[0].type == "response.created"
    assert seen[0].response.background is True
    response_id = seen[0].response.id
    async with await client.responses.retrieve(response_id, stream=True, starting_after=8) as stream:
        rest = [event async for event in stream]
    numbers = [event.sequence_number for event in (*seen, *rest)]
    assert numbers == list(range(len(numbers)))
    assert rest[-1].type == "response.completed"
    text = "".join(event.delta for event in (*seen, *rest) if event.type == "response.output_text.delta")
    assert text == rest[-1].response.output_text
    async with await client.responses.retrieve(response_id, stream=True) as stream:
        again = [event async for event in stream]
    assert [event.to_dict() for event in again[:-1]] == [event.to_dict() for event in (*seen, *rest)][:-1]
    assert len(upstream.requests) == 1


async def test_what_cannot_be_asked(cloud):
    """Without storing there is no background; what was not streamed cannot be; others' responses are not there."""
    client, other = client_of(cloud), client_of(cloud, OTHER_KEY)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="large", input=ASK, background=True, store=False)
    assert refused.value.param == "store"
    done = await until_over(client, await client.responses.create(model="large", input=ASK, background=True))
    with pytest.raises(openai.BadRequestError):
        await client.responses.retrieve(done.id, stream=True)
    plain = await client.responses.create(model="large", input=ASK)
    with pytest.raises(openai.BadRequestError):
        await client.responses.cancel(plain.id)
    for call in (other.responses.retrieve, other.responses.cancel, other.responses.delete):
        with pytest.raises(openai.NotFoundError):
            await call(done.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="no-such", input=ASK, background=True)
    await client.responses.delete(done.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(done.id)


async def test_completion_fetched_later(cloud, upstream):
    """`prefer: respond-async` gives a completion without choices, which `retrieve` gives whole; `delete` forgets it."""
    upstream.default = Script(text="Paris.", think_s=0.5)
    client = client_of(cloud)
    asked = {"model": "large", "messages": [{"role": "user", "content": ASK}]}
    pending = await client.chat.completions.create(**asked, extra_headers={"prefer": "respond-async"})
    assert pending.choices == []
    final = await client.chat.completions.retrieve(pending.id, extra_query={"wait": 20})
    assert final.choices[0].message.content == "Paris."
    assert (await client.chat.completions.delete(pending.id)).deleted is True
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.retrieve(pending.id)
