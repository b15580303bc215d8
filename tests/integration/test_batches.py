"""Batches when something is in their way: budgets, time, files that go, stores that are full, clusters."""

import asyncio
import base64
import json
import time

import httpx
import pytest

from gateway.jobs.batches import batch_name
from gateway.store.client import Store
from tests.gateway_fixture import KEY, policy_text
from tests.store_servers import Cluster
from tests.upstream.script import Script

pytestmark = pytest.mark.store

CHAT = "/v1/chat/completions"
SECRET = "the password of the vault is swordfish"


def lines_of(count, text="hello"):
    body = {"model": "large", "messages": [{"role": "user", "content": text}], "max_tokens": 20}
    return "".join(
        json.dumps({"custom_id": f"line-{n}", "method": "POST", "url": CHAT, "body": body}) + "\n" for n in range(count)
    )


class Client:
    """Asks one gateway for files and batches."""

    def __init__(self, gateway):
        self.url = gateway.base_url
        self.http = httpx.AsyncClient(trust_env=False, timeout=30, headers={"authorization": f"Bearer {KEY}"})

    async def ask(self, method, path, **body):
        """Ask until the store has time: on a busy machine it may have none for a moment."""
        for _ in range(100):
            answer = await self.http.request(method, f"{self.url}{path}", **body)
            if answer.status_code != 503:
                break
            await asyncio.sleep(0.1)
        return answer

    async def upload(self, content):
        return await self.ask("POST", "/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)})

    async def begin(self, content):
        file = await self.upload(content)
        assert file.status_code == 200, file.text
        wanted = {"input_file_id": file.json()["id"], "endpoint": CHAT, "completion_window": "24h"}
        answer = await self.ask("POST", "/batches", json=wanted)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def batch(self, batch):
        return (await self.ask("GET", f"/batches/{batch['id']}")).json()

    async def until(self, batch, true, seconds=30):
        end = time.monotonic() + seconds
        while not true(batch):
            assert time.monotonic() < end, batch
            await asyncio.sleep(0.05)
            batch = await self.batch(batch)
        return batch

    async def over(self, batch):
        return await self.until(batch, lambda one: one["status"] in {"completed", "failed", "expired", "cancelled"})

    async def lines(self, file_id):
        answer = await self.ask("GET", f"/files/{file_id}/content")
        return [json.loads(line) for line in answer.text.splitlines()]


@pytest.fixture
async def client_of():
    made = []

    def make(gateway):
        made.append(Client(gateway))
        return made[-1]

    yield make
    for one in made:
        await one.http.aclose()


async def test_a_budget_is_used_up_before_lines_are_refused(start_gateway, upstream, client_of):
    """Lines wait for what others of theirs give back; when nothing is left, they end with `insufficient_quota`."""
    upstream.default = Script(text="Paris.", think_s=0.02)  # uses 12 tokens, and holds about 110
    policy = policy_text(upstream.base_url, budgets="budgets: [{tokens: 600, per: day}]")
    gateway = await start_gateway(policy, edge=False)
    client = client_of(gateway)
    done = await client.over(await client.begin(lines_of(60)))
    counts = done["request_counts"]
    used = 12 * counts["completed"]
    assert 600 - 150 < used <= 600
    assert counts["completed"] + counts["failed"] == 60
    errors = await client.lines(done["error_file_id"])
    assert {line["response"]["body"]["error"]["code"] for line in errors} == {"insufficient_quota"}
    assert {line["response"]["status_code"] for line in errors} == {429}
    await gateway.services.ledger._settler.flush(2.0)
    [left] = await gateway.services.ledger.left("acme", gateway.services.policy.current.tenants["acme"].limits)
    assert left.left == 600 - used


async def test_a_rate_is_waited_for(start_gateway, upstream, client_of):
    """All lines are answered, however slowly the tenant may ask; the gateway does not knock in vain all the time."""
    policy = policy_text(upstream.base_url, budgets="rate: {requests: 300, per: minute}")
    gateway = await start_gateway(policy, edge=False)
    client = client_of(gateway)
    done = await client.over(await client.begin(lines_of(60)))
    assert done["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
    assert len(upstream.requests) == 60


async def test_passing_errors_are_tried_again(start_gateway, upstream, client_of):
    """A backend that fails once has its line asked again; one that fails for good is the line's error."""
    upstream.queue.append(Script(status=503))
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    client = client_of(gateway)
    done = await client.over(await client.begin(lines_of(2)))
    assert done["request_counts"]["completed"] == 2
    assert len(upstream.requests) >= 3
    metrics = (await client.http.get(f"{gateway.url}/metrics")).text
    assert 'firstdraft_jobs_total{job="batch",outcome="ok"} 2.0' in metrics


async def test_a_batch_whose_time_is_over(start_gateway, upstream, client_of):
    """Lines that were answered stay; the others have the error `batch_expired`, and the batch is `expired`."""
    upstream.queue.extend([Script(text="Paris.")] * 5)
    upstream.default = Script(text="Paris.", think_s=1.0)
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    client = client_of(gateway)
    batch = await client.until(await client.begin(lines_of(100)), lambda one: one["request_counts"]["completed"] >= 5)
    name = batch_name("acme", batch["id"])
    await gateway.services.store.command("HSET", name, "ends", int(time.time()) - 10)
    done = await client.over(batch)
    assert done["status"] == "expired"
    results, errors = await client.lines(done["output_file_id"]), await client.lines(done["error_file_id"])
    assert len(results) + len(errors) == 100
    assert 5 <= len(results) < 100
    assert {line["error"]["code"] for line in errors} == {"batch_expired"}


async def test_an_input_file_that_is_deleted(start_gateway, upstream, client_of):
    """A batch whose file goes while it is worked on has failed, and says why."""
    upstream.default = Script(text="Paris.", think_s=0.3)
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    client = client_of(gateway)
    batch = await client.until(await client.begin(lines_of(400)), lambda one: one["status"] == "in_progress")
    await client.http.delete(f"{client.url}/files/{batch['input_file_id']}")
    done = await client.over(batch)
    assert (done["status"], done["errors"]["data"][0]["code"]) == ("failed", "file_not_found")


async def test_what_a_tenant_may_keep(start_gateway, upstream, client_of, store):
    """A file beyond what a tenant's files may take together is refused, and nothing of it is left in the store."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, files_bytes=40_000)
    client = client_of(gateway)
    small = await client.upload(lines_of(100))
    assert small.status_code == 200
    for content in (lines_of(200), lines_of(150)):
        refused = await client.upload(content)
        assert refused.status_code == 413, refused.text
    keys = await store.command("KEYS", "fd1:file:*")
    assert len(keys) == 3  # what is known of it, and two pieces of 50 lines
    await client.http.delete(f"{client.url}/files/{small.json()['id']}")
    assert await store.command("KEYS", "fd1:file:*") == []
    assert (await client.upload(lines_of(150))).status_code == 200


@pytest.mark.parametrize("sealed", [True, False])
async def test_what_is_kept_is_encrypted_where_the_cache_is(start_gateway, upstream, client_of, store, sealed):
    """With cache keys no prompt and no answer of a batch or of a final to be fetched stands in the store in plain."""
    upstream.default = Script(text="Swordfish it is.")
    keys = {"cache_keys": base64.b64encode(b"k" * 32).decode()} if sealed else {}
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, **keys)
    client = client_of(gateway)
    done = await client.over(await client.begin(lines_of(3, SECRET)))
    assert len(await client.lines(done["output_file_id"])) == 3
    body = {"model": "large", "messages": [{"role": "user", "content": SECRET}]}
    pending = await client.http.post(f"{client.url}/chat/completions", json=body, headers={"prefer": "respond-async"})
    where = pending.headers["location"].removeprefix("/v1")
    assert (await client.http.get(client.url + where, params={"wait": 10})).status_code == 200
    dump = b""
    for key in await store.command("KEYS", "*"):
        kind = await store.command("TYPE", key)
        words = {b"string": ("GET", key), b"hash": ("HGETALL", key), b"stream": ("XRANGE", key, "-", "+")}.get(kind)
        dump += b"" if words is None else repr(await store.command(*words)).encode()
    assert (b"swordfish" not in dump) == sealed
    assert (b"Swordfish" not in dump) == sealed


async def test_a_gateway_that_drains_hands_over(start_gateway, upstream, client_of):
    """Lines that run are ended when the time to drain is over, and others do them: each line is answered once."""
    upstream.default = Script(text="Paris.", think_s=0.2)
    policy = policy_text(upstream.base_url)
    one = await start_gateway(policy, edge=False, lease_s=3.0)
    batch = await client_of(one).begin(lines_of(200))
    other = await start_gateway(policy, edge=False, lease_s=3.0)
    client = client_of(other)
    batch = await client.until(batch, lambda found: found["request_counts"]["completed"] >= 20)
    one.services.drain()
    one.services.cut()
    done = await client.over(batch)
    assert done["request_counts"] == {"total": 200, "completed": 200, "failed": 0}
    results = await client.lines(done["output_file_id"])
    assert [line["custom_id"] for line in results] == [f"line-{number}" for number in range(200)]


async def test_over_a_cluster(start_gateway, upstream, client_of, tmp_path):
    """Each script's keys are in one slot: files, batches and finals to be fetched work on a Cluster."""
    async with Cluster(tmp_path / "cluster") as cluster:
        async with Store(cluster.url, timeout_s=2.0) as store:
            await store.ping()
        gateway = await start_gateway(policy_text(upstream.base_url), edge=False, store_url=cluster.url)
        client = client_of(gateway)
        done = await client.over(await client.begin(lines_of(120)))
        assert done["request_counts"]["completed"] == 120
        assert len(await client.lines(done["output_file_id"])) == 120
        body = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}
        pending = await client.http.post(
            f"{client.url}/chat/completions", json=body, headers={"prefer": "respond-async"}
        )
        where = pending.headers["location"].removeprefix("/v1")
        assert (await client.http.get(client.url + where, params={"wait": 10})).status_code == 200
        gateway.services.drain()
