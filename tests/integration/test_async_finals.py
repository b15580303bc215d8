"""Finals that are fetched later, over real sockets, a real store and the real edge."""

import asyncio
import contextlib
import time

import httpx
import pytest

from gateway.errors import StoreUnavailable
from gateway.jobs.later_records import _LIST as LIST
from tests.gateway_fixture import KEY, OTHER_KEY, policy_text
from tests.upstream.script import Script

pytestmark = pytest.mark.store

BODY = {"model": "large", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
DRAFT_ROUTE = "mode: draft_refine\n    models: [large]\n    draft: {max_tokens: 16}"
ASYNC = {"authorization": f"Bearer {KEY}", "prefer": "respond-async"}
URL = "/v1/chat/completions"


@pytest.fixture
async def client():
    async with httpx.AsyncClient(trust_env=False, timeout=30) as opened:
        yield opened


async def ask(client, gateway, **changes):
    for _ in range(50):
        answer = await client.post(gateway.url + URL, json=BODY | changes, headers=ASYNC)
        if answer.status_code != 503 or answer.json()["error"]["code"] != "store_unavailable":
            break
        await asyncio.sleep(0.1)  # on a busy machine the store may have no time for a moment
    return answer


async def fetch(client, gateway, where, *, key=KEY, wait=20):
    headers = {"authorization": f"Bearer {key}"}
    return await client.get(f"{gateway.url}{where}", params={"wait": wait}, headers=headers)


async def test_the_draft_at_once_and_the_final_when_it_is_there(start_gateway, upstream, client):
    """202 has the whole draft and where the final will be; until then GET says 202 and when to ask again."""
    upstream.default = Script(text="Paris.", think_s=2.0)
    gateway = await start_gateway(policy_text(upstream.base_url, route=DRAFT_ROUTE))
    accepted = await ask(client, gateway)
    assert accepted.status_code == 202, accepted.text
    assert accepted.headers["preference-applied"] == "respond-async"
    draft = accepted.json()["draft"]
    assert (draft["state"], accepted.json()["choices"]) == ("complete", [])
    assert draft["text"]
    where = accepted.headers["location"]
    assert where == f"{URL}/{accepted.json()['id']}"
    early = await fetch(client, gateway, where, wait=0)
    assert (early.status_code, early.json()["draft"]) == (202, draft)
    assert int(early.headers["retry-after"]) >= 1
    final = await fetch(client, gateway, where)
    assert final.status_code == 200, final.text
    assert final.json()["choices"][0]["message"]["content"] == "Paris."
    assert final.json()["draft"]["state"] in {"confirmed", "revised", "replaced"}
    assert final.headers["x-firstdraft-mode"] == "draft_refine"
    assert final.headers["x-firstdraft-deployment"] == "cloud/scripted"


async def test_without_a_draft(start_gateway, upstream, client):
    """Where no draft is made, or none is wanted, 202 comes as soon as the request is admitted."""
    upstream.default = Script(text="Paris.", think_s=1.0)
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    began = time.monotonic()
    accepted = await ask(client, gateway)
    assert time.monotonic() - began < 0.9
    assert accepted.status_code == 202
    assert "draft" not in accepted.json()
    final = await fetch(client, gateway, accepted.headers["location"])
    assert final.json()["choices"][0]["message"]["content"] == "Paris."


async def test_what_is_refused_is_refused_at_once(start_gateway, upstream, client):
    """An unknown model, a constraint, a spent budget and a wrong field have their own status, and keep nothing."""
    budgets = "budgets: [{tokens: 10, per: day}]"
    gateway = await start_gateway(policy_text(upstream.base_url, budgets=budgets), edge=False)
    assert (await ask(client, gateway, model="no-such")).status_code == 404
    assert (await ask(client, gateway, messages=[])).status_code == 400
    assert (await ask(client, gateway, metadata={"labels": "health"})).status_code in {403, 503}
    spent = await ask(client, gateway)
    assert (spent.status_code, spent.json()["error"]["code"]) == (429, "insufficient_quota")
    assert gateway.services.jobs.later.running == 0
    assert upstream.requests == []


async def test_a_failure_is_told_as_its_client_would_have_got_it(start_gateway, upstream, client):
    """The backend's own error is what GET gives, with its status, and SDKs are told not to ask again."""
    upstream.default = Script(
        status=400, body=b'{"error": {"message": "no such thing", "type": "invalid_request_error"}}', think_s=0.3
    )
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    accepted = await ask(client, gateway)
    assert accepted.status_code == 202
    failed = await fetch(client, gateway, accepted.headers["location"])
    assert failed.status_code == 400
    assert "no such thing" in failed.text
    assert failed.headers["x-should-retry"] == "false"


async def test_it_belongs_to_its_tenant(start_gateway, upstream, client):
    """Another tenant gets 404 for it, to fetch and to delete; so does everybody for an id that never was."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    where = (await ask(client, gateway)).headers["location"]
    assert (await fetch(client, gateway, where, key=OTHER_KEY)).status_code == 404
    deleted = await client.delete(gateway.url + where, headers={"authorization": f"Bearer {OTHER_KEY}"})
    assert deleted.status_code == 404
    assert (await fetch(client, gateway, where)).status_code == 200
    assert (await fetch(client, gateway, f"{URL}/chatcmpl-none")).status_code == 404


async def test_any_replica_answers_and_is_woken(start_gateway, upstream, client):
    """A GET that waits on another replica is answered as soon as the final is there."""
    upstream.default = Script(text="Paris.", think_s=1.5)
    policy = policy_text(upstream.base_url)
    one = await start_gateway(policy, edge=False)
    other = await start_gateway(policy, edge=False)
    where = (await ask(client, one)).headers["location"]
    began = time.monotonic()
    final = await fetch(client, other, where)
    assert (final.status_code, final.json()["choices"][0]["message"]["content"]) == (200, "Paris.")
    assert time.monotonic() - began < 4.0
    assert len(upstream.requests) == 1


async def test_delete_ends_it_on_any_replica(start_gateway, upstream, client):
    """Deleting one that is still being made ends the attempt, on whatever gateway it runs; then it is gone."""
    upstream.default = Script(text="Paris.", think_s=20.0)
    policy = policy_text(upstream.base_url)
    one = await start_gateway(policy, edge=False)
    other = await start_gateway(policy, edge=False)
    where = (await ask(client, one)).headers["location"]
    await until(lambda: upstream.open == 1)
    began = time.monotonic()
    deleted = await client.delete(other.url + where, headers=one.auth)
    assert deleted.json()["deleted"] is True
    await until(lambda: upstream.open == 0)
    assert time.monotonic() - began < 2.0
    assert (await fetch(client, one, where, wait=0)).status_code == 404


async def test_the_client_that_leaves_after_202_cancels_nothing(start_gateway, upstream):
    """The connection may end: the final is made all the same, and charged once."""
    upstream.default = Script(text="Paris.", think_s=0.7)
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as first:
        where = (await ask(first, gateway)).headers["location"]
    async with httpx.AsyncClient(trust_env=False, timeout=30) as second:
        assert (await fetch(second, gateway, where)).status_code == 200
    assert upstream.disconnects == []


async def test_the_client_that_leaves_before_202_cancels(start_gateway, upstream):
    """Nobody knows what to ask for: the draft, the attempt and what is kept of it end."""
    upstream.default = Script(text="Paris.", think_s=20.0)
    route = "mode: draft_refine\n    models: [large]\n    draft: {max_tokens: 400}"
    gateway = await start_gateway(policy_text(upstream.base_url, route=route))
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        story = [{"role": "user", "content": "Tell me a very long story about a lighthouse keeper and the sea."}]
        asking = asyncio.create_task(ask(client, gateway, messages=story))
        await until(lambda: upstream.open == 1)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        await until(lambda: upstream.open == 0)
    await until(lambda: gateway.services.jobs.later.running == 0)


@pytest.mark.parametrize("how", ["the client leaves", "the answer is lost"])
async def test_what_was_kept_while_its_client_was_told_nothing_is_forgotten(
    start_gateway, upstream, client, store, monkeypatch, how
):
    """The store has it, its client has not heard of it: it is ended, and no other gateway begins it anew."""
    upstream.default = Script(text="Paris.", think_s=20.0)
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, lease_s=1.0)
    listed, command = asyncio.Event(), gateway.services.store.command

    async def lost(*words):
        answer = await command(*words)
        if words[0] == "SADD" and words[1] == LIST:
            listed.set()
            if how == "the answer is lost":
                raise StoreUnavailable("lost")
            await asyncio.Event().wait()
        return answer

    monkeypatch.setattr(gateway.services.store, "command", lost)
    asking = asyncio.create_task(client.post(gateway.url + URL, json=BODY, headers=ASYNC))
    await listed.wait()
    if how == "the client leaves":
        asking.cancel()
    else:
        assert (await asking).status_code == 503
    await until(lambda: upstream.open == 0 and gateway.services.jobs.later.running == 0)
    async with asyncio.timeout(5):
        while await store.command("KEYS", "fd1:later:*") or await store.command("SMEMBERS", LIST):
            await asyncio.sleep(0.05)
    assert len(upstream.requests) == 1


async def test_a_streamed_request_is_streamed(start_gateway, upstream, client):
    """Who reads the answer as it comes does not have to fetch it: the preference changes nothing."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    answer = await ask(client, gateway, stream=True)
    assert answer.status_code == 200
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_wait_is_a_number(start_gateway, upstream, client):
    """`?wait=` that is no number is a mistake that is named."""
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False)
    where = (await ask(client, gateway)).headers["location"]
    answer = await fetch(client, gateway, where, wait="soon")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "wait")


async def test_a_gateway_that_drains_hands_over(start_gateway, upstream, client, store):
    """What is still being made when the time to drain is over is begun anew by another replica, and answered once."""
    upstream.queue.extend([Script(text="first", think_s=30.0), Script(text="second")])
    policy = policy_text(upstream.base_url)
    one = await start_gateway(policy, edge=False, lease_s=2.0)
    other = await start_gateway(policy, edge=False, lease_s=2.0)
    where = (await ask(client, one)).headers["location"]
    await until(lambda: upstream.open == 1)
    one.services.drain()
    one.services.cut()
    final = await fetch(client, other, where)
    assert (final.status_code, final.json()["choices"][0]["message"]["content"]) == (200, "second")
    assert len(upstream.requests) == 2


async def test_a_stream_that_is_begun_anew_is_not_gone_on_with(start_gateway, upstream, client, store):
    """Who has read the beginning of one answer must not get the end of another: the stream is read from its start."""
    upstream.queue.append(Script(text="first " * 50, chunks=50, delay_s=0.1))
    upstream.default = Script(text="second", chunks=3)
    policy = policy_text(upstream.base_url)
    one = await start_gateway(policy, edge=False, lease_s=2.0)
    other = await start_gateway(policy, edge=False, lease_s=2.0)
    body = {"model": "large", "input": "hello", "background": True, "stream": True}
    async with client.stream("POST", f"{one.base_url}/responses", json=body, headers=one.auth) as stream:
        seen = ""
        async for piece in stream.aiter_text():
            seen += piece
            if "first" in seen:
                break
        where = "/v1/responses/" + seen.split('"id":"')[1].split('"')[0]
        one.services.drain()
        one.services.cut()
    again = await client.get(other.url + where, params={"stream": "true"}, headers=one.auth)
    assert "second" in again.text
    assert "first" not in again.text
    assert "response.completed" in again.text
    gone_on = await client.get(other.url + where, params={"stream": "true", "starting_after": 4}, headers=one.auth)
    assert (gone_on.status_code, gone_on.json()["error"]["code"]) == (400, "response_begun_anew")


async def until(true, seconds=10.0):
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.01)
