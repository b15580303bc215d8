"""The prompt cache as clients meet it: two gateways on one store, a scripted backend, real sockets."""

import asyncio
import base64
import json
import random
import statistics
import time

import aiohttp
import pytest

from tests.gateway_fixture import KEY, OTHER_KEY, policy_text
from tests.upstream.script import Script

pytestmark = pytest.mark.store

_PAIRS = 120
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"q": 1}'}}]


def route(cache="{ttl: 1h}", more=""):
    return f"mode: cloud_only\n    models: [large]\n    cache: {cache}\n    {more}"


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(http, gateway, *, stream=False, text="Hi", key=KEY, headers=None, **fields):
    body = {"model": "large", "messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    auth = {"authorization": f"Bearer {key}", **(headers or {})}
    async with http.post(f"{gateway.base_url}/chat/completions", json=body, headers=auth) as response:
        return response.status, response.headers, await response.read()


def told(headers):
    return headers.get("x-firstdraft-cache")


def streamed(body):
    """Text, usage and finish reason of a stream."""
    events = [json.loads(line[6:]) for line in body.decode().split("\n\n") if line.startswith("data: {")]
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])
    reasons = [event["choices"][0]["finish_reason"] for event in events if event["choices"]]
    return text, events[-1]["usage"], [reason for reason in reasons if reason]


async def settled(gateway):
    """What was put is in the store."""
    await gateway.services.pipeline._cache.flush()


@pytest.mark.parametrize("script", [Script(chunks=9), Script(tool_calls=CALLS, finish_reason="tool_calls")])
@pytest.mark.parametrize("first", [True, False], ids=["streamed first", "plain first"])
async def test_one_entry_serves_both_forms(start_gateway, upstream, http, first, script):
    """A plain request is answered from a streamed answer, and the other way round, on this gateway and another."""
    upstream.default = script
    one, other = [await start_gateway(policy_text(upstream.base_url, route=route()), edge=False) for _ in range(2)]
    answers = {}
    for gateway, stream, expected in (
        (one, first, "miss"),
        (one, not first, "hit"),
        (other, first, "hit"),
        (other, not first, "hit"),
    ):
        status, headers, body = await ask(http, gateway, stream=stream)
        assert (status, told(headers)) == (200, expected)
        await settled(gateway)
        answers.setdefault(stream, []).append(body)
    assert len(upstream.requests) == 1
    assert answers[True][0] == answers[True][1]
    assert answers[False][0] == answers[False][1]
    whole = json.loads(answers[False][0])
    text, usage, reasons = streamed(answers[True][0])
    assert (text or None) == (whole["choices"][0]["message"]["content"] or None)
    assert (usage, reasons) == (whole["usage"], [whole["choices"][0]["finish_reason"]])


async def test_a_form_of_its_own(start_gateway, upstream, http):
    """What one form cannot say is fetched anew for it, and then each form has its entry."""
    upstream.default = Script(extra={"citations": ["x"]})
    gateway = await start_gateway(policy_text(upstream.base_url, route=route()), edge=False)
    for stream in (True, False):
        assert told((await ask(http, gateway, stream=stream))[1]) == "miss"
        await settled(gateway)
    for stream in (True, False, True, False):
        assert told((await ask(http, gateway, stream=stream))[1]) == "hit"
    assert len(upstream.requests) == 2


async def test_identical_requests_in_flight_share_one(start_gateway, upstream, http):
    """Thirty clients on two gateways ask the same at once: the backend is asked once, and all get the answer."""
    upstream.default = Script(chunks=20, delay_s=0.02)
    gateways = [await start_gateway(policy_text(upstream.base_url, route=route()), edge=False) for _ in range(2)]
    answers = await asyncio.gather(*(ask(http, gateways[number % 2], stream=True) for number in range(30)))
    assert len(upstream.requests) == 1
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, _, body in answers}) == 1
    states = [told(headers) for _, headers, _ in answers]
    assert states.count("miss") == 1
    assert set(states) <= {"miss", "coalesced", "hit"}


async def test_the_first_client_leaves(start_gateway, upstream, http):
    """The others read on, the backend is not asked again, and what it cost is logged by the flight itself."""
    upstream.default = Script(chunks=20, delay_s=0.02)
    gateway = await start_gateway(policy_text(upstream.base_url, route=route()), edge=False)
    finished = []
    finish = gateway.services.pipeline._finish
    gateway.services.pipeline._finish = lambda record: (finished.append(record), finish(record))
    first = asyncio.create_task(ask(http, gateway, stream=True))
    await asyncio.sleep(0.1)
    others = [asyncio.create_task(ask(http, gateway, stream=True)) for _ in range(3)]
    await asyncio.sleep(0.1)
    first.cancel()
    for status, headers, body in await asyncio.gather(*others):
        assert (status, told(headers), streamed(body)[2]) == (200, "coalesced", ["stop"])
    assert len(upstream.requests) == 1
    assert upstream.disconnects == []
    (record,) = finished
    assert record.output_tokens > 0


async def test_all_clients_leave(start_gateway, upstream, http):
    """The backend's connection is closed, as without a cache."""
    upstream.default = Script(chunks=200, delay_s=0.02)
    gateway = await start_gateway(policy_text(upstream.base_url, route=route()), edge=False)
    tasks = [asyncio.create_task(ask(http, gateway, stream=True)) for _ in range(3)]
    await asyncio.sleep(0.2)
    for task in tasks:
        task.cancel()
    async with asyncio.timeout(3):
        while not upstream.disconnects:
            await asyncio.sleep(0.01)


async def test_stale_while_revalidating(start_gateway, upstream, http):
    """After its time an answer is given as stale, once more fetched in the background, and then fresh again."""
    text = policy_text(upstream.base_url, route=route("{ttl: 200ms, stale: 1m}"))
    gateway = await start_gateway(text, edge=False)
    assert told((await ask(http, gateway))[1]) == "miss"
    await asyncio.sleep(0.25)
    assert told((await ask(http, gateway))[1]) == "stale"
    async with asyncio.timeout(3):
        while len(upstream.requests) < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert told((await ask(http, gateway))[1]) == "hit"
    assert len(upstream.requests) == 2
    await asyncio.sleep(0.25)
    assert told((await ask(http, gateway, headers={"cache-control": "max-age=0"}))[1]) == "miss"


async def test_a_label_separates(start_gateway, upstream, http):
    """An answer that was fetched without a label is not given to a request that has it."""
    gateway = await start_gateway(policy_text(upstream.base_url, route=route()), edge=False)
    assert told((await ask(http, gateway))[1]) == "miss"
    assert told((await ask(http, gateway, headers={"x-firstdraft-labels": "internal"}))[1]) == "miss"
    assert told((await ask(http, gateway, headers={"x-firstdraft-labels": "internal"}))[1]) == "hit"


async def test_a_backend_that_moves_separates(start_gateway, upstream, http):
    """What a backend answered in one region is not given as an answer of another region."""
    text = policy_text(upstream.base_url, route=route())
    inside = await start_gateway(text, edge=False)
    outside = await start_gateway(text.replace("region: eu-west", "region: us-east"), edge=False)
    assert told((await ask(http, outside))[1]) == "miss"
    assert told((await ask(http, inside))[1]) == "miss"
    assert told((await ask(http, inside))[1]) == "hit"


async def test_what_is_given_again_is_charged_as_the_route_says(start_gateway, upstream, http):
    """By default nothing; with `charge: 0.5`, half of the tokens and of the cost, for hits and followers alike."""
    upstream.default = Script(chunks=10, delay_s=0.01)
    for cache, share in (("{ttl: 1h}", 0), ("{ttl: 1h, charge: 0.5}", 0.5)):
        text = policy_text(upstream.base_url, route=route(cache), budgets="budgets: [{tokens: 1_000_000, per: day}]")
        gateway = await start_gateway(text.replace("acme:", f"acme{share}:".replace(".", "")), edge=False)
        prompt = f"with {share}"
        pair = [asyncio.create_task(ask(http, gateway, text=prompt, stream=True)) for _ in range(2)]
        usage = streamed((await asyncio.gather(*pair))[0][2])[1]["total_tokens"]
        await ask(http, gateway, text=prompt, stream=True)
        async with http.get(f"{gateway.base_url}/firstdraft/usage", headers=gateway.auth) as response:
            (budget,) = (await response.json())["budgets"]
        spent = budget["limit"] - budget["left"]
        assert usage + 2 * share * usage <= spent <= usage + 2 * (share * usage + (2 if share else 0))


async def test_answers_are_encrypted_in_the_store(start_gateway, upstream, http, store):
    """With keys, nothing of an answer can be read in the store, and another gateway with the key finds it."""
    keys = base64.b64encode(b"k" * 32).decode()
    text = policy_text(upstream.base_url, route=route())
    one, other = [await start_gateway(text, edge=False, cache_keys=keys) for _ in range(2)]
    await ask(http, one)
    await settled(one)
    names = await store.command("KEYS", "fd1:cache:*")
    kept = [data for name in names if (data := await store.get(name.decode())) is not None]
    assert kept
    assert not any(b"scripted" in data for data in kept)
    assert told((await ask(http, other))[1]) == "hit"


async def test_a_store_that_hangs_does_not_delay_the_end_of_an_answer(start_gateway, upstream, http, monkeypatch):
    """Keeping an answer is no part of giving it."""
    gateway = await start_gateway(policy_text(upstream.base_url, route=route()), edge=False)
    writing = asyncio.Event()

    async def hang(*_args, **_named):
        writing.set()
        await asyncio.sleep(5)

    monkeypatch.setattr(gateway.services.store, "set", hang)
    began = time.monotonic()
    await ask(http, gateway, stream=True)
    assert time.monotonic() - began < 3
    await asyncio.wait_for(writing.wait(), 3)
    assert told((await ask(http, gateway))[1]) == "hit"


async def pairs(http, gateway, name, count, *, in_flight=False):
    """How much longer `OTHER_KEY`'s tenant waits for a prompt that `acme` sent than for one that nobody sent; headers.

    In random order within each pair. With `in_flight` acme still waits for its answer when the other one asks.
    """
    rng, differences, headers_seen = random.Random(name), [], set()
    for number in range(count):
        took, asking = {}, [ask(http, gateway, text=f"known {name} {number}") for _ in range(1 if in_flight else 2)]
        asking = [asyncio.create_task(one) for one in asking]
        if in_flight:
            await asyncio.sleep(0.002)
        else:
            await asyncio.gather(*asking)
        for kind in rng.sample(["known", "fresh"], 2):
            began = time.perf_counter()
            _, headers, _ = await ask(http, gateway, text=f"{kind} {name} {number}", key=OTHER_KEY)
            took[kind] = time.perf_counter() - began
            headers_seen.add((told(headers), tuple(sorted(headers))))
        await asyncio.gather(*asking)
        differences.append(took["known"] - took["fresh"])
    return differences, headers_seen


def is_told_apart(differences):
    """A sign test: if neither is faster, each wins half; 4.5 deviations from that come by chance in 1 of 150,000."""
    faster = sum(difference < 0 for difference in differences)
    return abs(faster - len(differences) / 2) / (len(differences) / 4) ** 0.5 > 4.5


@pytest.mark.parametrize("in_flight", [False, True], ids=["answered", "in flight"])
async def test_tenants_cannot_tell_what_others_asked(start_gateway, upstream, http, monkeypatch, in_flight):
    """By header and by time a prompt that another tenant sent, or waits for, is like one that nobody sent.

    The same measurement finds leaks that are put in: a time not much larger than the machine's noise, a shared answer.
    """
    upstream.default = Script(think_s=0.01 if in_flight else 0.002)
    gateway = await start_gateway(policy_text(upstream.base_url, route=route()), edge=False)
    cache, key = gateway.services.pipeline._cache, gateway.services.pipeline._cache.key
    clean, headers = await pairs(http, gateway, "clean", _PAIRS, in_flight=in_flight)
    assert {state for state, _ in headers} == {"miss"}
    assert len(headers) == 1
    assert not is_told_apart(clean)

    noise = statistics.median(map(abs, clean))
    asked = set()

    def slower_for_new_prompts(**of):
        text = bytes(of["request"].fields["messages"])
        if of["tenant"] == "acme":
            asked.add(text)
        elif text not in asked:
            time.sleep(max(0.001, 1.5 * noise))
        return key(**of)

    monkeypatch.setattr(cache, "key", slower_for_new_prompts)
    leaking, headers = await pairs(http, gateway, "slower", _PAIRS, in_flight=in_flight)
    assert {state for state, _ in headers} == {"miss"}
    assert is_told_apart(leaking)

    monkeypatch.setattr(cache, "key", lambda **of: key(**of | {"tenant": ""}))
    _, headers = await pairs(http, gateway, "shared", 5, in_flight=in_flight)
    assert {state for state, _ in headers} > {"miss"}
