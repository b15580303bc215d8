"""One client for each backend of the policy."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from gateway.backends.edge import EdgeBackend
from gateway.backends.pool import Backends
from gateway.edge.client import EdgeStatus
from gateway.errors import EdgeUnavailable
from gateway.inference.deployment import Backend, Secret
from tests.unit.backends.asking import Taken, ask, call_for
from tests.upstream.script import Script

EDGE = Backend(name="edge", type="edge", region="local")


async def test_same_backend_same_client(deployment):
    """Two policies that name the same backend share its client; a backend that differs in its key has its own."""
    async with Backends(None) as backends:
        client = backends.client(deployment.backend)
        assert backends.client(msgspec.structs.replace(deployment.backend)) is client
        assert backends.client(msgspec.structs.replace(deployment.backend, api_key=Secret("other"))) is not client


async def test_edge_is_switched_off():
    """Without an edge, its backend is unavailable and says why."""
    async with Backends(None) as backends:
        with pytest.raises(EdgeUnavailable, match="switched off"):
            backends.client(EDGE)


async def test_edge_has_one_client():
    """All backends of type edge are the one edge."""
    async with Backends(object()) as backends:
        assert isinstance(backends.client(EDGE), EdgeBackend)
        assert backends.client(EDGE) is backends.client(msgspec.structs.replace(EDGE, name="other"))


async def test_retired_client_ends_its_call_first(scripted, deployment):
    """A backend that leaves the policy in mid-answer completes it, then its connections are closed."""
    scripted.queue.append(Script(chunks=10, delay_s=0.02))
    async with Backends(None) as backends:
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
    async with Backends(None) as backends:
        client = backends.client(deployment.backend)
        await ask(client, call_for(deployment))
        await backends.retire([deployment.backend])
        assert backends.client(deployment.backend) is client
        await ask(client, call_for(deployment))
    assert len(scripted.peers) == 1


async def test_an_answer_is_judged_by_what_was_learnt_of_the_model_that_is_loaded():
    """Estimate and threshold are asked with the edge's fingerprint; without an edge, or without one, there is none."""
    edge = SimpleNamespace(status=EdgeStatus(state="warm", fingerprint="abc-q8_0"))
    learnt = SimpleNamespace(
        estimate=lambda *asked: 0.5 if asked == ("abc-q8_0", (1.0,)) else None,
        threshold=lambda *asked: 0.9 if asked == ("abc-q8_0", 0.05) else None,
    )
    async with Backends(edge, learnt) as backends:
        assert (backends.estimate((1.0,)), backends.threshold(0.05)) == (0.5, 0.9)
        assert backends.estimate(None) is None
    for knows_nothing in (Backends(None, learnt), Backends(edge)):
        async with knows_nothing as backends:
            assert (backends.estimate((1.0,)), backends.threshold(0.05)) == (None, None)
