"""The cache of prompts on a real Valkey."""

import asyncio
import os
import zlib

import msgspec
import pytest

from gateway.cache import local, secret
from gateway.cache.prompts import CacheRule, PromptCache
from gateway.inference.events import (
    DraftCompleted,
    DraftJudged,
    DraftState,
    DraftText,
    Finished,
    Idle,
    Relayed,
    TextDelta,
    UsageReported,
    WholeAnswer,
)
from gateway.inference.usage import Usage
from gateway.store.client import Store
from tests.store_servers import Server, free_ports

pytestmark = pytest.mark.store

HOUR = CacheRule(ttl_s=3_600)
USAGE = UsageReported(Usage(input_tokens=9, output_tokens=2, cached_input_tokens=3), b"data: {}\n\n")
STREAM = [
    Relayed(data=b"data: 1\n\n", text="Par", content=True, content_bytes=3),
    Relayed(data=b"data: \xc3\xa9\n\n", text="is", content=True, content_bytes=2),
    Relayed(data=b"data: 3\n\n", finish_reason="stop"),
    USAGE,
]


NAME = "fd1:cache:{k}"


@pytest.fixture
async def cache(store):
    async with PromptCache(store, secret=b"s") as opened:
        yield opened


@pytest.fixture
async def other(store):
    """Another replica: it shares the store, not the memory."""
    async with PromptCache(store, secret=b"s") as opened:
        yield opened


async def keep(cache, key, events, rule=HOUR, *, stream=True):
    """Put an answer, and wait until the store has it."""
    await cache.put(key, events, rule, stream=stream)


async def get(cache, key, *, stream=True):
    """The events of the answer; None: there is none."""
    found = await cache.get(key, stream=stream)
    return None if found is None else found.events


async def test_stream_is_replayed(cache, other):
    """A streamed answer comes back in one piece, byte for byte, with usage; from memory and from the store alike."""
    await keep(cache, "k", STREAM)
    joined = Relayed(
        data=b"data: 1\n\ndata: \xc3\xa9\n\ndata: 3\n\n",
        text="Paris",
        content=True,
        content_bytes=5,
        finish_reason="stop",
    )
    for replica in (cache, other, other):
        found = await replica.get("k", stream=True)
        assert found.events == [joined, USAGE]
        assert 0 <= found.age_s < 5
    assert (cache.counts.local_hits, cache.counts.store_hits) == (1, 0)
    assert (other.counts.local_hits, other.counts.store_hits) == (1, 1)


@pytest.mark.parametrize(
    ("events", "replayed"),
    [
        (
            [TextDelta("a"), TextDelta("b"), Finished("stop"), UsageReported(Usage())],
            [TextDelta("ab"), Finished("stop"), UsageReported(Usage())],
        ),
        ([WholeAnswer(body=b"{\xff}", text="é", finish_reason="stop", usage=None)],) * 2,
        (
            [
                DraftText("d", "m"),
                Idle(),
                TextDelta("a"),
                DraftCompleted(text="d", model="m", tokens=1, ttft_s=0.1),
                TextDelta("b"),
                DraftJudged(state=DraftState.REPLACED, model="m"),
                Finished("stop"),
            ],
            [TextDelta("ab"), Finished("stop")],
        ),
    ],
    ids=["edge", "whole", "with a draft"],
)
async def test_what_is_kept(cache, other, events, replayed):
    """Every kind of final is kept; drafts and keep-alives are not part of one."""
    stream = not isinstance(events[0], WholeAnswer)
    await keep(cache, "k", events, stream=stream)
    assert await get(other, "k", stream=stream) == replayed


@pytest.mark.parametrize("events", [[], STREAM[:2], STREAM[:2] + STREAM[3:], [TextDelta("a")], [DraftText("d", "m")]])
async def test_answer_that_is_not_complete(cache, other, events):
    """What does not say how it ended was cut, and is not kept."""
    await keep(cache, "k", events)
    assert await get(cache, "k") is None
    assert await get(other, "k") is None
    assert cache.counts.incomplete == 1


async def test_entry_that_expires(cache, other, store):
    """An answer is given for as long as the rule says, on both levels."""
    await keep(cache, "k", STREAM, CacheRule(ttl_s=0.15))
    assert await get(cache, "k") is not None
    assert await get(other, "k") is not None
    await asyncio.sleep(0.2)
    assert await get(cache, "k") is None
    assert await get(other, "k") is None
    assert await store.get(NAME + ":stream") is None


async def test_memory_follows_the_store(cache, other, monkeypatch):
    """What another replica has replaced is given from memory for a moment only."""
    monkeypatch.setattr(local, "TTL_S", 0.05)
    await keep(cache, "k", STREAM)
    await keep(other, "k", [TextDelta("new"), Finished("stop")])
    assert (await get(cache, "k"))[0].text == "Paris"
    await asyncio.sleep(0.06)
    assert (await get(cache, "k"))[0].text == "new"


async def test_memory_is_bounded(cache, monkeypatch):
    """The least recently used answers leave the memory first; the store still has them."""
    monkeypatch.setattr(local, "MOST_BYTES", 10_000)
    for number in range(10):
        body = os.urandom(2_400)
        await keep(cache, str(number), [WholeAnswer(body=body, text="", finish_reason="stop")], stream=False)
        assert await get(cache, "0", stream=False) is not None
    assert cache._local._bytes <= 10_000
    assert [name.partition(":")[0] for name in cache._local._answers] == ["7", "8", "9", "0"]
    assert await get(cache, "1", stream=False) is not None
    assert cache.counts.store_hits == 1


@pytest.mark.parametrize("size", [100, 5_000, 300_000])
@pytest.mark.parametrize("text", [b"a", None], ids=["repeated", "random"])
async def test_answers_of_all_sizes(cache, other, store, size, text):
    """Large answers are deflated where it helps, and come back as they were."""
    body = text * size if text else os.urandom(size)
    await keep(cache, "k", [WholeAnswer(body=body, text="", finish_reason="stop")], stream=False)
    assert (await get(other, "k", stream=False))[0].body == body
    stored = len(await store.get(NAME + ":whole"))
    assert (stored < size / 10) == (text is not None and size > 4_096)


async def test_answer_that_is_too_large(store):
    """It is not kept, and counted."""
    async with PromptCache(store, secret=b"s", max_bytes_per_answer=1_000) as cache:
        for size in (1_001, 1_000):  # over the limit as it is, and as it is written down
            body = os.urandom(size)
            await keep(cache, "k", [WholeAnswer(body=body, text="", finish_reason="stop")], stream=False)
        assert await cache.look_up("k", stream=False) == (None, "")
        assert cache.counts.too_large == 2


async def test_text_that_is_no_unicode(cache):
    """An answer that cannot be written down is not kept, and nothing is raised."""
    await keep(cache, "k", [TextDelta("\ud800"), Finished("stop")])
    assert await cache.look_up("k", stream=True) == (None, "")


async def test_entries_that_are_none(cache, store):
    """Whatever stands under a key, a hit is a whole answer: anything else is a miss."""
    await keep(cache, "good", STREAM)
    good = await store.get("fd1:cache:{good}:stream")
    bomb = b"\x02" + zlib.compress(bytes(50_000_000))
    wrong = [b"", b"\x01", b"\x02", b"\x03" + good[1:], b"\x02" + good[1:], good[:-1], good + b"x", bomb, b"\xff" * 99]
    wrong.append(b"\x01" + msgspec.msgpack.encode([0.0, 1e12, 0.0, 0, [{"type": "Unknown"}]]))
    wrong.append(b"\x01" + msgspec.msgpack.encode({"stored_at": 0}))
    for number, data in enumerate(wrong):
        await store.set(f"fd1:cache:{{{number}}}", data, ttl_s=60)
        assert await get(cache, str(number)) is None
    assert cache.counts.unreadable == len(wrong)
    await store.command("LPUSH", "fd1:cache:{list}", "x")
    assert await get(cache, "list") is None


async def test_store_that_is_gone(store):
    """Without the store, look-ups miss and nothing is raised; this process still knows its own answers."""
    async with Store("unix:///nowhere/at/all") as absent, PromptCache(absent, secret=b"s") as cache:
        assert await get(cache, "k") is None
        await keep(cache, "k", STREAM)
        assert await get(cache, "k") is not None
    assert cache.counts.store_failures == 2


async def test_secret_of_a_gateway_that_started_without_its_store(tmp_path, monkeypatch):
    """It takes the shared one once the store is there, and gives it back to one that lost it; rubbish is no secret."""
    monkeypatch.setattr(secret, "_EVERY_S", 0.02)
    server = Server(tmp_path, free_ports(1)[0])
    taken: list[bytes] = []
    async with Store(server.url, timeout_s=2.0) as store:
        own = await secret.shared_secret(store)
        following = asyncio.create_task(secret.follow_secret(store, own, taken.append))
        async with server:
            async with Store(server.url, timeout_s=2.0) as other:
                shared = await secret.shared_secret(other)
                async with asyncio.timeout(10):
                    while shared not in {own, *taken}:  # whoever came first: it is one for both
                        await asyncio.sleep(0.02)
                    await other.command("FLUSHALL")
                    while await other.get("fd1:cache-secret") != shared:
                        await asyncio.sleep(0.02)
                await other.command("SET", "fd1:cache-secret", "x" * 100)
                await asyncio.sleep(0.1)
                assert len(await secret.shared_secret(other)) == 32
            assert taken in ([], [shared])
            following.cancel()
            await asyncio.wait((following,))
