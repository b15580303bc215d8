"""The store behind Sentinels and in a Cluster, with real servers that fail over."""

import asyncio

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.client import ScriptCall, Store
from gateway.store.script import RUN, Script
from tests.store_servers import Cluster, SentinelPair, until

pytestmark = [pytest.mark.store, pytest.mark.slow]

COUNT = Script("count", "return redis.call('INCR', KEYS[1])")
WHO = Script("who", "return ARGV[1]")


def keys(count: int) -> list[str]:
    return [f"fd1:{{tenant-{number}}}:n" for number in range(count)]


async def answers(store: Store, key: str) -> bool:
    try:
        await store.script(COUNT, (key,), ())
    except StoreUnavailable:
        return False
    return True


async def test_failover_of_a_pair(tmp_path):
    """When the master dies, calls fail at once, and are served again by the one that Sentinels promoted, by itself."""
    async with SentinelPair(tmp_path) as pair, Store(pair.url, timeout_s=0.25) as store:
        [key] = keys(1)
        assert await store.script(COUNT, (key,), ()) == 1
        before = await store.script(WHO, (key,), (RUN,))
        dead = await pair.master()
        await dead.kill()
        with pytest.raises(StoreUnavailable):
            await store.script(COUNT, (key,), ())
        started = asyncio.get_running_loop().time()
        for _ in range(20):
            with pytest.raises(StoreUnavailable):
                await store.script(COUNT, (key,), ())
        assert asyncio.get_running_loop().time() - started < 1.0
        await until(lambda: answers(store, key), 20)
        assert (await pair.master()).port != dead.port
        assert await store.script(WHO, (key,), (RUN,)) != before
        assert int(await store.get(key)) >= 2


async def test_master_that_wakes_up_after_a_failover(tmp_path):
    """A frozen master that was replaced is not used again when it goes on."""
    async with SentinelPair(tmp_path) as pair, Store(pair.url, timeout_s=0.25) as store:
        [key] = keys(1)
        await store.script(COUNT, (key,), ())
        old = await pair.master()
        old.freeze()
        with pytest.raises(StoreUnavailable):
            await store.script(COUNT, (key,), ())
        await until(lambda: answers(store, key), 20)
        new = await store.script(WHO, (key,), (RUN,))
        old.go_on()
        for _ in range(50):
            assert await store.script(WHO, (key,), (RUN,)) == new
            await asyncio.sleep(0.01)


async def test_password_of_a_pair(tmp_path):
    """The servers' login is used for the servers, and stands in no message."""
    flags = ("--requirepass", "right-word", "--masterauth", "right-word")
    pair = SentinelPair(tmp_path, *flags)
    for sentinel in pair.sentinels:
        sentinel._flags = ()
    async with pair.servers[0] as server:
        async with Store(server.url.replace("//", "//:right-word@"), timeout_s=2.0) as store:
            assert await answers(store, keys(1)[0])
        async with Store(server.url.replace("//", "//:wrong-word@"), timeout_s=2.0) as refused:
            with pytest.raises(StoreUnavailable) as caught:
                await refused.get("fd1:a")
        assert "wrong-word" not in caught.value.message


async def test_cluster(tmp_path):
    """Each key is asked for at its own node, in batches too, and a dead master's replica takes over."""
    async with Cluster(tmp_path) as cluster, Store(cluster.url, timeout_s=0.5) as store:
        many = keys(30)
        for key in many:
            await store.set(key, b"1", ttl_s=60)
        assert await store.scripts([ScriptCall(COUNT, (key,), ()) for key in many]) == [2] * 30
        assert len({await store.script(WHO, (key,), (RUN,)) for key in many}) == 3
        victim = await cluster.master_of(many[0])
        others = [key for key in many if await cluster.master_of(key) is not victim]
        await victim.kill()
        assert not await answers(store, many[0])
        assert all([await answers(store, key) for key in others[:3]])
        await until(lambda: answers(store, many[0]), 20)
        assert int(await store.get(many[0])) >= 3


async def test_slot_that_moves(tmp_path):
    """A node that no longer has a slot says so without doing anything; the call goes to the one that has it, once."""
    async with Cluster(tmp_path) as cluster, Store(cluster.url, timeout_s=0.5) as store:
        key = keys(1)[0]
        await store.ping()
        source = await cluster.master_of(key)
        target = next(server for server in cluster.servers[:3] if server is not source)
        slot = (await source.ask("CLUSTER", "KEYSLOT", key)).strip(":\r\n")
        target_id = (await target.ask("CLUSTER", "MYID")).split("\r\n")[1]
        for server in (target, source, *cluster.servers[:3]):
            await server.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        assert await store.script(COUNT, (key,), ()) == 1
        assert await store.script(COUNT, (key,), ()) == 2
        assert (await cluster.master_of(key)) is target
