"""A model out of a hub, by the hub's own client, from a server on this machine that speaks its API."""

import hashlib

import pytest
from aiohttp import web

from gateway.edge.client import EdgeClient, EdgeRequest
from gateway.edge.hub import fetch
from gateway.edge.model_files import SHIPPED_MODEL, find_model
from gateway.edge.supervisor import EdgeSupervisor
from gateway.errors import EdgeUnavailable
from gateway.inference.request import Message

pytest.importorskip("huggingface_hub", reason="needs the extra `hf`")
pytestmark = pytest.mark.edge

NAME = "hf://someone/small-GGUF/small.gguf"
COMMIT = "a" * 40


class Hub:
    """Has one file; counts how often it was sent."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.digest = hashlib.sha256(content).hexdigest()
        self.sent = 0

    async def answer(self, request: web.Request) -> web.Response:
        if request.path != "/someone/small-GGUF/resolve/main/small.gguf":
            return web.Response(status=404, headers={"x-error-code": "RepoNotFound"})
        headers = {"x-repo-commit": COMMIT, "x-linked-etag": f'"{self.digest}"', "etag": f'"{self.digest}"'}
        headers["x-linked-size"] = str(len(self.content))
        if request.method != "HEAD":
            self.sent += 1
        return web.Response(body=self.content, headers=headers)


@pytest.fixture
async def hub(aiohttp_server, monkeypatch):
    found = Hub(find_model(SHIPPED_MODEL).read_bytes())
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    server = await aiohttp_server(app)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.port}")
    return found


def supervised(folder, name):
    return EdgeSupervisor(model=name, socket_path=folder / "edge.sock", state_dir=folder, n_ctx=512)


async def test_a_model_is_fetched_with_progress_and_answers(hub, tmp_path):
    """The status tells how much is there; the second start sends for nothing."""
    reasons = []
    async with supervised(tmp_path, NAME), EdgeClient(tmp_path / "edge.sock") as client:
        while client.status.state != "warm":
            before = client.status
            status = await client.until(lambda now, before=before: now is not before)
            assert status.state in {"starting", "warm"}, status.reason
            reasons.append(status.reason)
        events = [
            event async for event in client.generate(EdgeRequest(messages=(Message("user", "hi"),), max_tokens=2))
        ]
        assert events
    assert f"{NAME} is fetched: 100 %" in reasons
    async with supervised(tmp_path, NAME), EdgeClient(tmp_path / "edge.sock") as client:
        await client.until_warm()
    assert hub.sent == 1


async def test_a_damaged_model_is_not_loaded(hub, tmp_path):
    """What does not hash to what the hub says is refused."""
    hub.digest = "0" * 64
    async with supervised(tmp_path, NAME), EdgeClient(tmp_path / "edge.sock") as client:
        with pytest.raises(EdgeUnavailable, match="SHA-256"):
            await client.until_warm()


async def test_a_model_that_the_hub_does_not_have(hub, tmp_path):
    """The reason names the model."""
    async with supervised(tmp_path, "hf://someone/else/x.gguf"), EdgeClient(tmp_path / "edge.sock") as client:
        with pytest.raises(EdgeUnavailable, match=r"hf://someone/else/x\.gguf"):
            await client.until_warm()


@pytest.mark.parametrize("name", ["hf://", "hf://a/b", "hf://a/b/c.bin", "hf://a/b/../../x.gguf", "hf://a/b?c/d.gguf"])
def test_a_name_that_is_none(tmp_path, name):
    """It is refused before anything is asked."""
    with pytest.raises(EdgeUnavailable, match=r"hf://owner/repo/file\.gguf"):
        fetch(name, tmp_path, print)
