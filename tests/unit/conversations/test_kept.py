import msgspec
import pytest

from gateway.cache.sealing import Sealer
from gateway.conversations import kept
from gateway.conversations.kept import Conversations, KeptResponse
from gateway.inference.conversation import Reasoning, Text, ToolCall, ToolResult, Turn
from gateway.store.client import Store

TURNS = (
    Turn("user", (Text("what is it like in Zürich?"),)),
    Turn("assistant", (Reasoning(text="I look", signature="s"), ToolCall("c1", "weather", '{"a": 1}'))),
    Turn("tool", (ToolResult(call_id="c1", parts=(Text("sunny"),), is_error=True),)),
)
KEPT = KeptResponse(msgspec.Raw(b'{"id":"resp_1","output":[]}'), TURNS)


async def test_what_was_put_comes_back_whole(store):
    """The response byte for byte, each turn with each part."""
    conversations = Conversations(store)
    assert await conversations.put("acme", "resp_1", KEPT)
    found = await conversations.get("acme", "resp_1")
    assert (bytes(found.response), found.turns) == (bytes(KEPT.response), TURNS)


async def test_nobody_else_sees_it(store):
    """Another tenant, another id, and names that would run into each other find nothing and delete nothing."""
    conversations = Conversations(store)
    await conversations.put("acme", "resp_1", KEPT)
    for tenant, response_id in (("other", "resp_1"), ("acme", "resp_2"), ("acmer", "esp_1"), ("", "acmeresp_1")):
        assert await conversations.get(tenant, response_id) is None
        assert not await conversations.delete(tenant, response_id)
    assert await conversations.delete("acme", "resp_1")
    assert await conversations.get("acme", "resp_1") is None


async def test_it_is_sealed_where_keys_are_set(store):
    """With a key the store holds nothing that can be read; without the key, or with another, there is nothing."""
    pytest.importorskip("cryptography")
    sealed = Conversations(store, Sealer([b"k" * 32]))
    await sealed.put("acme", "resp_1", KEPT)
    assert (await sealed.get("acme", "resp_1")).turns == TURNS
    assert await Conversations(store).get("acme", "resp_1") is None
    assert await Conversations(store, Sealer([b"o" * 32])).get("acme", "resp_1") is None


async def test_it_expires(store):
    """Each entry has an end, a week away."""
    await Conversations(store).put("acme", "resp_1", KEPT)
    assert 0 < await store.command("PTTL", kept._name("acme", "resp_1")) <= kept.KEPT_S * 1000


async def test_too_large_is_not_kept(store, monkeypatch):
    """A conversation over the limit is refused, not cut."""
    monkeypatch.setattr(kept, "MOST_BYTES", 100)
    conversations = Conversations(store)
    assert not await conversations.put("acme", "resp_1", KEPT)
    assert await conversations.get("acme", "resp_1") is None


async def test_a_store_that_is_gone_keeps_nothing_and_says_so(tmp_path):
    """The answer stands without the store; it is told as not kept."""
    async with Store(f"unix://{tmp_path}/nowhere.sock") as gone:
        assert not await Conversations(gone).put("acme", "resp_1", KEPT)


async def test_an_entry_that_cannot_be_read_is_none(store):
    """Foreign bytes under the key are no response."""
    await store.set(kept._name("acme", "resp_1"), b"not deflated", ttl_s=60)
    assert await Conversations(store).get("acme", "resp_1") is None
