"""Embeddings by the model beside the gateway, asked for by the real SDK."""

import asyncio
import hashlib

import openai
import pytest

from tests.gateway_fixture import KEY

POLICY = f"""
backends:
  here: {{type: minilm, compliance: [no-egress]}}
models:
  embed: [{{backend: here}}]
routes:
  - {{name: embeddings, mode: cloud_only, models: [embed], cache: {{ttl: 1h}}}}
tenants:
  acme:
    keys: [{{name: prod, sha256: {hashlib.sha256(KEY.encode()).hexdigest()}}}]
    budgets: [{{tokens: 10_000, per: day}}]
"""


@pytest.fixture
async def gateway(start_gateway):
    return await start_gateway(POLICY, edge=False)


def client_of(gateway):
    return openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)


async def test_alike_texts_have_alike_vectors(gateway):
    """What means the same is nearer than what has the same words; numbers and base64 say the same."""
    texts = ["How do I get my money back?", "What is the way to a refund?", "I have money in the back of my car."]
    client = client_of(gateway).embeddings
    answer = await client.create(model="embed", input=texts)  # the SDK asks for base64 by itself
    as_numbers = await client.create(model="embed", input=texts, encoding_format="float")
    vectors = [one.embedding for one in answer.data]
    assert [one.embedding for one in as_numbers.data] == [pytest.approx(vector, abs=1e-6) for vector in vectors]
    assert [len(vector) for vector in vectors] == [384, 384, 384]

    def likeness(one, other):
        return sum(a * b for a, b in zip(vectors[one], vectors[other], strict=True))

    assert likeness(0, 1) > likeness(0, 2)
    assert likeness(0, 0) == pytest.approx(1, abs=1e-5)
    assert answer.model == "all-MiniLM-L6-v2"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 20


async def test_they_are_cached_and_booked_once(gateway):
    """The same texts again are a hit that costs nothing; the first time costs their tokens."""
    client = client_of(gateway).embeddings
    first = await client.with_raw_response.create(model="embed", input="Refunds take five days.")
    again = await client.with_raw_response.create(model="embed", input="Refunds take five days.")
    assert [one.headers["x-firstdraft-cache"] for one in (first, again)] == ["miss", "hit"]
    assert first.content == again.content
    await gateway.services.ledger._settler.flush(2.0)
    usage = await client_of(gateway).get("/firstdraft/usage", cast_to=object)
    assert 10_000 - usage["budgets"][0]["left"] == first.parse().usage.total_tokens


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("dimensions", {"input": "?", "dimensions": 64}),
        ("input", {"input": [[1, 2, 3]]}),
        ("input[1]", {"input": ["short", "long " * 500]}),
        ("encoding_format", {"input": "?", "encoding_format": "int8"}),
    ],
)
async def test_what_the_model_cannot_do_is_named(gateway, field, asked):
    """Other dimensions, tokens of other models and texts that are too long are a 400 with the field's name."""
    with pytest.raises(openai.BadRequestError) as failure:
        await client_of(gateway).embeddings.create(model="embed", **asked)
    assert failure.value.param == field


async def test_a_chat_is_refused(gateway):
    """A model for embeddings answers no chat, and says so."""
    with pytest.raises(openai.BadRequestError) as failure:
        await client_of(gateway).chat.completions.create(model="embed", messages=[{"role": "user", "content": "?"}])
    assert failure.value.param == "model"


async def test_a_client_that_leaves_ends_the_work(gateway):
    """Of many texts only the few that are being read when the client goes are read to the end."""
    client = client_of(gateway)
    asking = asyncio.create_task(client.embeddings.create(model="embed", input=["word " * 200] * 400))
    await asyncio.sleep(1)
    asking.cancel()
    async with asyncio.timeout(10):
        answer = await client.embeddings.create(model="embed", input="short")
    assert len(answer.data) == 1
    assert gateway.services.in_flight == 0
