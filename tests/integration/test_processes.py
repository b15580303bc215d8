"""`firstdraft serve` as a process: killed in its parts and as a whole, drained, started again."""

import asyncio
import json
import os
import signal
import time

import aiohttp
import pytest

from tests.gateway_fixture import KEY, policy_text
from tests.integration.process_fixture import Process, alive, command, descendants, short_folder
from tests.upstream.script import Script

AUTH = {"authorization": f"Bearer {KEY}"}
ROUTE = "mode: draft_refine\n    models: [large]\n    fallback: [small]"
BUDGET = "budgets: [{tokens: 100_000, per: day}]"


def body(**more):
    return {"model": "large", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 100, **more}


@pytest.fixture
def state():
    with short_folder() as folder:
        yield folder


@pytest.fixture
def policies(tmp_path, upstream):
    (tmp_path / "policy.yaml").write_text(policy_text(upstream.base_url, route=ROUTE, budgets=BUDGET))
    return tmp_path


async def ask(url, **more):
    async with aiohttp.ClientSession(headers=AUTH) as session:
        response = await session.post(f"{url}/v1/chat/completions", json=body(**more))
        return response.status, await response.json()


async def budget_left(url):
    async with aiohttp.ClientSession(headers=AUTH) as session:
        answer = await (await session.get(f"{url}/v1/firstdraft/usage")).json()
    return answer["budgets"][0]["left"]


async def gone(pids, seconds=5.0):
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end, [command(pid) for pid in pids if alive(pid)]
        await asyncio.sleep(0.02)


async def test_killed_edge_comes_back_and_answers_go_on_meanwhile(policies, state, upstream):
    """Without the edge the final still comes; the process is started again and drafts again."""
    async with Process(policies, state) as gateway:
        await gateway.ready()
        (edge,) = gateway.children("gateway.edge.process")
        os.kill(edge, signal.SIGKILL)
        status, answer = await ask(gateway.url, draft="frames")
        assert status == 200
        assert answer["choices"][0]["message"]["content"]
        await gone([edge])
        upstream.default = Script(text="Hello.", think_s=1.0)

        async def drafted():
            return "draft" in (await ask(gateway.url, draft="frames"))[1]

        end = time.monotonic() + 30
        while not await drafted():
            assert time.monotonic() < end, gateway.raw[-3000:]


async def test_killed_store_costs_a_bounded_time_and_keeps_what_was_spent(policies, state):
    """A dead store is a 503 in time, not a hang; it is started again with its data."""
    async with Process(policies, state, "--no-edge") as gateway:
        await gateway.ready()
        assert (await ask(gateway.url))[0] == 200
        spent = await budget_left(gateway.url)
        await asyncio.sleep(1.2)  # the append-only file reaches the disk once a second
        for pid in gateway.children("valkey-server"):
            os.kill(pid, signal.SIGKILL)
        begun = time.monotonic()
        status, answer = await ask(gateway.url)
        assert time.monotonic() - begun < 2
        assert status in {200, 503}
        if status == 503:
            assert answer["error"]["code"] == "store_unavailable"
        end = time.monotonic() + 10
        while (await ask(gateway.url))[0] != 200:
            assert time.monotonic() < end, gateway.raw[-3000:]
            await asyncio.sleep(0.05)
        assert await budget_left(gateway.url) < spent


async def test_frozen_store_costs_a_bounded_time(policies, state):
    """SIGSTOP on the store: refused within its time limit, served again when it wakes."""
    async with Process(policies, state, "--no-edge", "--store-timeout-s", "0.25") as gateway:
        await gateway.ready()
        (pid,) = gateway.children("valkey-server")
        os.kill(pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            status, answer = await ask(gateway.url)
            assert time.monotonic() - begun < 2
            assert (status, answer["error"]["code"]) == (503, "store_unavailable")
        finally:
            os.kill(pid, signal.SIGCONT)
        end = time.monotonic() + 5
        while (await ask(gateway.url))[0] != 200:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)


async def test_killed_gateway_leaves_no_orphan_and_loses_no_budget(policies, state, upstream):
    """Killed as a whole: children end by themselves, the next start works, what was spent or held stays so."""
    async with Process(policies, state) as gateway:
        await gateway.ready()
        assert (await ask(gateway.url))[0] == 200
        left = await budget_left(gateway.url)
        upstream.default = Script(stall_after=1, chunks=5)
        async with aiohttp.ClientSession(headers=AUTH) as session:
            response = await session.post(f"{gateway.url}/v1/chat/completions", json=body(stream=True))
            await response.content.readany()
            await asyncio.sleep(1.2)
            family = descendants(gateway.pid)
            assert len(family) >= 2
            gateway.kill()
            await gateway.wait()
        await gone(family)
    upstream.default = Script()
    async with Process(policies, state, "--no-edge") as gateway:
        await gateway.ready()
        after = await budget_left(gateway.url)
        assert after <= left - 100
        assert (await ask(gateway.url))[0] == 200


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_drains(policies, state, upstream, workers):
    """Running streams end whole, new connections are refused, data is kept, nothing is left behind."""
    upstream.default = Script(chunks=20, delay_s=0.05)
    async with Process(policies, state, "--no-edge", "--workers", str(workers)) as gateway:
        await gateway.ready()
        family = descendants(gateway.pid)
        async with aiohttp.ClientSession(headers=AUTH) as session:
            response = await session.post(f"{gateway.url}/v1/chat/completions", json=body(stream=True))
            await response.content.readany()
            gateway.kill(signal.SIGTERM)
            await asyncio.sleep(0.2)
            with pytest.raises(aiohttp.ClientError):
                await ask(gateway.url)
            rest = await response.read()
        assert rest.endswith(b"data: [DONE]\n\n")
        assert await asyncio.wait_for(gateway.wait(), 10) == 0
        await gone(family)
    async with Process(policies, state, "--no-edge") as gateway:
        await gateway.ready()
        assert await budget_left(gateway.url) < 100_000


async def test_ready_in_half_a_second_without_the_edge(policies, state):
    """From start to the first 200 of `/readyz`: measured, printed; asserted loosely, for machines are shared."""
    begun = time.monotonic()
    async with Process(policies, state, "--no-edge") as gateway:
        await gateway.ready()
        took = time.monotonic() - begun
    print(f"ready after {took:.3f} s")
    assert took < 5


async def test_two_gateways_cannot_share_a_state_folder(policies, state):
    """The second one is refused in a sentence that names the folder."""
    async with Process(policies, state, "--no-edge"):
        other = Process(policies, state, "--no-edge")
        with pytest.raises(AssertionError, match=str(state)):
            await other.__aenter__()
        assert await other.wait() != 0


async def test_a_bad_policy_is_refused_and_the_old_one_serves(policies, state):
    """An edit with a mistake changes nothing but `/readyz`, which says what is wrong."""
    async with Process(policies, state, "--no-edge") as gateway:
        await gateway.ready()
        file = policies / "policy.yaml"
        good = file.read_text()
        file.write_text(good.replace("mode: draft_refine", "mode: draft_refined"))
        end = time.monotonic() + 10
        async with aiohttp.ClientSession() as session:
            while True:
                answer = await (await session.get(f"{gateway.url}/readyz")).json()
                if "refused" in answer["policy"]:
                    break
                assert time.monotonic() < end
                await asyncio.sleep(0.05)
        assert "draft_refine" in json.dumps(answer)
        assert (await ask(gateway.url))[0] == 200


async def test_a_dead_worker_is_replaced(policies, state):
    """With two workers, a killed one takes nothing with it and is started again."""
    async with Process(policies, state, "--no-edge", "--workers", "2") as gateway:
        await gateway.ready()
        workers = gateway.children("gateway.server.worker")
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        await gone(workers[:1])
        for _ in range(10):
            assert (await ask(gateway.url))[0] == 200
        end = time.monotonic() + 10
        while len(gateway.children("gateway.server.worker")) < 2:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("second_signal", [False, True])
async def test_whoever_is_cut_off_is_told(policies, state, upstream, second_signal):
    """Past the time to drain, or at a second signal: an error in the stream, none of it silent, and exit status 0."""
    upstream.default = Script(chunks=1000, delay_s=0.05)
    limit = "30" if second_signal else "0.3"
    async with Process(policies, state, "--no-edge", "--drain-s", limit) as gateway:
        await gateway.ready()
        async with aiohttp.ClientSession(headers=AUTH) as session:
            response = await session.post(f"{gateway.url}/v1/chat/completions", json=body(stream=True))
            await response.content.readany()
            gateway.kill(signal.SIGINT)
            if second_signal:
                await asyncio.sleep(0.2)
                gateway.kill(signal.SIGINT)
            rest = await response.read()
        assert b"shutting_down" in rest
        assert b"[DONE]" not in rest
        assert await asyncio.wait_for(gateway.wait(), 5) == 0
        assert "Traceback" not in gateway.raw
