"""One client for each backend of the policy."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from gateway.backends.edge import EdgeBackend
from gateway.backends.edges import Edges
from gateway.backends.pool import Backends
from gateway.edge.client import EdgeStatus
from gateway.errors import EdgeUnavailable
from gateway.inference.deployment import FREE, Backend, Deployment, Secret
from gateway.inference.prediction import EdgeNow
from tests.unit.backends.asking import Taken, ask, call_for
from tests.upstream.script import Script

EDGE = Backend(name="edge", type="edge", region="local")


def _edge(**status):
    """Has the part of EdgeClient that says how an edge is."""
    return SimpleNamespace(status=EdgeStatus(**({"state": "warm"} | status)), wait_s=0.5)


async def test_same_backend_same_client(deployment):
    """Two policies that name the same backend share its client; a backend that differs in its key has its own."""
    async with Backends(Edges()) as backends:
        client = backends.client(deployment.backend)
        assert backends.client(msgspec.structs.replace(deployment.backend)) is client
        assert backends.client(msgspec.structs.replace(deployment.backend, api_key=Secret("other"))) is not client


async def test_edge_is_switched_off():
    """Without an edge, its backend is unavailable and says why."""
    async with Backends(Edges()) as backends:
        with pytest.raises(EdgeUnavailable, match="switched off"):
            backends.client(EDGE)


async def test_backends_with_one_model_are_one_edge():
    """Each edge serves the backends that name its model; one that is not loaded is never served by another."""
    first, second = _edge(model="small"), _edge(model="large")
    async with Backends(Edges(first, {"large": second})) as backends:
        for named, asked in (("small", first), ("large", second)):
            found = backends.client(msgspec.structs.replace(EDGE, edge_model=named))
            assert isinstance(found, EdgeBackend)
            assert found._client is asked
        with pytest.raises(EdgeUnavailable, match="new is not loaded"):
            backends.client(msgspec.structs.replace(EDGE, edge_model="new"))


async def test_edges_are_told_as_they_are():
    """The policy's first edge, and the others by their deployments; what is not loaded is not ready, and why."""
    edges = Edges(_edge(model="small", n_ctx=9), {"large": _edge(model="large", state="starting", reason="it loads")})
    deployments = [
        Deployment(id=f"e/{model}", backend=msgspec.structs.replace(EDGE, edge_model=model), model=model, price=FREE)
        for model in ("small", "large", "new")
    ]
    first, others = edges.now(deployments)
    assert (first.ready, first.context_tokens, first.wait_s) == (True, 9, 0.5)
    assert (others["e/large"].ready, others["e/large"].reason) == (False, "it loads")
    assert "not loaded" in others["e/new"].reason
    assert edges.now([]) == (EdgeNow(reason="the policy has no edge"), {})


async def test_retired_client_ends_its_call_first(scripted, deployment):
    """A backend that leaves the policy in mid-answer completes it, then its connections are closed."""
    scripted.queue.append(Script(chunks=10, delay_s=0.02))
    async with Backends(Edges()) as backends:
        client = backends.client(deployment.backend)
        taken = Taken()
        task = asyncio.create_task(client.answer(call_for(deployment), taken))
        await taken.first.wait()
        await backends.retire([])
        await task
        assert taken.events[-1].usage.output_tokens == 10
        assert client._connections._kept is None
        assert backends.client(deployment.backend) is not client


async def test_client_in_use_stays(scripted, deployment):
    """A backend that is still in the policy keeps its client and its connections."""
    async with Backends(Edges()) as backends:
        client = backends.client(deployment.backend)
        await ask(client, call_for(deployment))
        await backends.retire([deployment.backend])
        assert backends.client(deployment.backend) is client
        await ask(client, call_for(deployment))
    assert len(scripted.peers) == 1


async def test_an_answer_is_judged_by_what_was_learnt_of_the_model_that_is_loaded():
    """The estimate is asked with the edge's fingerprint; without an edge, or without one, there is none."""
    edges, learnt = Edges(_edge(fingerprint="abc-q8_0")), SimpleNamespace()
    learnt.estimate = lambda *asked: 0.5 if asked == ("abc-q8_0", (1.0,)) else None
    learnt.threshold = lambda *asked: 0.75 if asked == ("abc-q8_0", 0.1) else None
    async with Backends(edges, learnt) as backends:
        assert backends.estimate(EDGE, (1.0,)) == 0.5
        assert backends.estimate(EDGE, None) is None
        assert backends.threshold(EDGE, 0.1) == 0.75
    async with Backends(Edges(), learnt) as backends:
        assert backends.estimate(EDGE, (1.0,)) is None
        assert backends.threshold(EDGE, 0.1) is None
    async with Backends(edges) as backends:
        assert backends.estimate(EDGE, (1.0,)) is None
