"""The `openai` package's files and batches, from end to end."""

import asyncio
import io
import json
import time

import openai
import pytest

from tests.gateway_fixture import KEY, OTHER_KEY, policy_text
from tests.upstream.script import Script

CHAT = "/v1/chat/completions"


def client_of(gateway, key=KEY):
    return openai.AsyncOpenAI(base_url=gateway.base_url, api_key=key, max_retries=4)  # a busy store may say 503


@pytest.fixture
async def cloud(start_gateway, upstream):
    return await start_gateway(policy_text(upstream.base_url), edge=False)


def line(number, text="hello", *, url=CHAT, **body):
    body = {"model": "large", "messages": [{"role": "user", "content": text}], "max_tokens": 20} | body
    return {"custom_id": f"line-{number}", "method": "POST", "url": url, "body": body}


def jsonl(lines):
    return "".join(json.dumps(one) + "\n" for one in lines).encode()


async def upload(client, lines, **more):
    return await client.files.create(file=("in.jsonl", io.BytesIO(jsonl(lines))), purpose="batch", **more)


async def until_over(client, batch, seconds=30):
    end = time.monotonic() + seconds
    while batch.status in {"validating", "in_progress", "finalizing", "cancelling"}:
        assert time.monotonic() < end, batch
        await asyncio.sleep(0.05)
        batch = await client.batches.retrieve(batch.id)
    return batch


async def read(client, file_id):
    return [json.loads(text) for text in (await client.files.content(file_id)).text.splitlines()]


async def test_files(cloud):
    """A file is uploaded, listed page by page, read, and deleted; nobody else sees it."""
    client, other = client_of(cloud), client_of(cloud, OTHER_KEY)
    made = [await upload(client, [line(1), line(2)]) for _ in range(3)]
    assert (made[0].purpose, made[0].filename, made[0].status) == ("batch", "in.jsonl", "processed")
    assert made[0].bytes == len(jsonl([line(1), line(2)]))
    assert (await client.files.retrieve(made[0].id)) == made[0]
    assert (await client.files.content(made[0].id)).read() == jsonl([line(1), line(2)])
    listed = [file.id async for file in client.files.list(limit=2)]
    assert listed == [file.id for file in reversed(made)]
    assert [file.id async for file in client.files.list(order="asc", purpose="batch")] == listed[::-1]
    assert [file async for file in other.files.list()] == []
    for call in (other.files.retrieve, other.files.content, other.files.delete):
        with pytest.raises(openai.NotFoundError):
            await call(made[0].id)
    assert (await client.files.delete(made[0].id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(made[0].id)
    later = await upload(client, [line(1)], expires_after={"anchor": "created_at", "seconds": 3600})
    assert later.expires_at == later.created_at + 3600


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no lines"),
        (b"hello\n", "Line 1"),
        (jsonl([line(1)]) + b'{"custom_id": "x"}\n', "Line 2"),
        (jsonl([line(1), line(2), line(1)]), "Line 3"),
        (jsonl([line(1, url="/v1/images/generations")]), "Line 1"),
        (b'{"custom_id": "a", "method": "GET", "url": "/v1/embeddings", "body": {}}', "Line 1"),
        (b"\xff\xfe\n", "Line 1"),
    ],
)
async def test_a_file_that_is_no_batch_is_refused(cloud, content, said):
    """What is wrong is told with the number of its line, and nothing is kept of it."""
    client = client_of(cloud)
    with pytest.raises(openai.BadRequestError, match=said):
        await client.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch")
    assert [file async for file in client.files.list()] == []
    with pytest.raises(openai.BadRequestError, match="purpose"):
        await client.files.create(file=("in.jsonl", io.BytesIO(jsonl([line(1)]))), purpose="fine-tune")


async def test_a_batch(cloud, upstream):
    """Each line is answered once, under its custom_id; errors stand in a file of their own; the counts add up."""
    upstream.default = Script(text="Paris.")
    lines = [line(number) for number in range(120)]
    lines[7] = line(7, model="no-such")
    lines[77] = line(77, temperature=7)
    client = client_of(cloud)
    file = await upload(client, lines)
    batch = await client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"name": "test"}
    )
    assert (batch.status, batch.metadata, batch.request_counts.total) == ("validating", {"name": "test"}, 120)
    done = await until_over(client, batch)
    assert done.status == "completed"
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (120, 118, 2)
    assert done.completed_at >= done.in_progress_at >= done.created_at
    results = await read(client, done.output_file_id)
    assert [one["custom_id"] for one in results] == [f"line-{n}" for n in range(120) if n not in {7, 77}]
    assert {one["response"]["status_code"] for one in results} == {200}
    assert results[0]["response"]["body"]["choices"][0]["message"]["content"] == "Paris."
    assert all(one["response"]["request_id"].startswith("req-") for one in results)
    errors = {one["custom_id"]: one["response"]["status_code"] for one in await read(client, done.error_file_id)}
    assert errors == {"line-7": 404, "line-77": 400}
    assert len(upstream.requests) == 118
    found = await client.files.retrieve(done.output_file_id)
    assert (found.purpose, found.bytes) == ("batch_output", len((await client.files.content(found.id)).content))
    assert [one.id async for one in client.batches.list()] == [batch.id]
    assert [one async for one in client_of(cloud, OTHER_KEY).batches.list()] == []
    with pytest.raises(openai.NotFoundError):
        await client_of(cloud, OTHER_KEY).batches.retrieve(batch.id)
    with pytest.raises(openai.NotFoundError):
        await client_of(cloud, OTHER_KEY).files.content(done.output_file_id)


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/completions", {"model": "large", "prompt": "Once upon", "max_tokens": 5}),
        ("/v1/embeddings", {"model": "large", "input": "hello"}),
        ("/v1/responses", {"model": "large", "input": "hello"}),
    ],
)
async def test_other_endpoints(cloud, url, body):
    """Completions, embeddings and responses are answered in lines as they are one by one."""
    client = client_of(cloud)
    file = await upload(client, [{"custom_id": "a", "method": "POST", "url": url, "body": body}])
    done = await until_over(
        client, await client.batches.create(input_file_id=file.id, endpoint=url, completion_window="1h")
    )
    assert (done.status, done.request_counts.completed) == ("completed", 1)
    [result] = await read(client, done.output_file_id)
    assert result["response"]["body"]["object"] in {"text_completion", "list", "response"}


async def test_what_is_no_batch(cloud):
    """A file of somebody else, another endpoint, or a window that is none: refused, and the field is named."""
    client = client_of(cloud)
    file = await upload(client, [line(1)])
    good = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    for field, value in (
        ("endpoint", "/v1/embeddings"),
        ("endpoint", "/v1/none"),
        ("completion_window", "8d"),
        ("completion_window", "soon"),
        ("metadata", {"a": "b" * 600}),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.batches.create(**good | {field: value})
        assert refused.value.param.startswith(field)
    with pytest.raises(openai.NotFoundError, match="uploaded file"):
        await client_of(cloud, OTHER_KEY).batches.create(**good)
    with pytest.raises(openai.NotFoundError):
        await client.batches.retrieve("batch_none")
    with pytest.raises(openai.NotFoundError):
        await client.batches.cancel("batch_none")


async def test_cancelled(cloud, upstream):
    """Cancelling ends what runs at once; what was answered before stays."""
    upstream.default = Script(text="Paris.")
    upstream.by_model["scripted"] = Script(text="Paris.", think_s=30)
    upstream.queue.extend([Script(text="Paris.")] * 3)
    client = client_of(cloud)
    file = await upload(client, [line(number) for number in range(60)])
    batch = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    while batch.request_counts.completed < 3:
        await asyncio.sleep(0.05)
        batch = await client.batches.retrieve(batch.id)
    assert upstream.open > 0
    cancelling = await client.batches.cancel(batch.id)
    assert cancelling.status in {"cancelling", "cancelled"}
    done = await until_over(client, cancelling)
    assert (done.status, upstream.open) == ("cancelled", 0)
    assert len(await read(client, done.output_file_id)) == done.request_counts.completed == 3
    assert (await client.batches.cancel(batch.id)).status == "cancelled"


async def test_with_the_sync_client(cloud):
    """The synchronous client runs a batch from end to end."""

    def run():
        client = openai.OpenAI(base_url=cloud.base_url, api_key=KEY, max_retries=4)
        file = client.files.create(file=("in.jsonl", jsonl([line(1), line(2)])), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        end = time.monotonic() + 30
        while batch.status != "completed":
            assert time.monotonic() < end, batch
            time.sleep(0.05)
            batch = client.batches.retrieve(batch.id)
        return client.files.content(batch.output_file_id).text

    assert [json.loads(one)["custom_id"] for one in (await asyncio.to_thread(run)).splitlines()] == ["line-1", "line-2"]
