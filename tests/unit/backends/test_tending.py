"""Checks, connections opened ahead and warm-up requests, against a real server."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from gateway.backends import tending
from gateway.backends.pool import Backends
from gateway.backends.tending import Tending
from gateway.inference.deployment import FREE, Backend, Check, Deployment
from tests.upstream.script import Script
from tests.upstream.scripted import ScriptedUpstream


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as server:
        yield server


@contextlib.asynccontextmanager
async def tended(upstream, **changes):
    """A backend under care: its deployment, the backends, and the mapping that stands for the policy."""
    backend = Backend(name="gpu", type="openai", base_url=upstream.base_url, region="eu")
    backend = msgspec.structs.replace(backend, **changes)
    deployment = Deployment(id="gpu/m", backend=backend, model="m", price=FREE)
    policy = {deployment.id: deployment}
    async with Backends(None) as backends:
        backends.health.know(policy)
        task = asyncio.create_task(Tending(backends, lambda: policy).run())
        try:
            yield deployment, backends, policy
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def test_checks_take_a_backend_out_and_back(upstream):
    """Two bad answers in a row shut it, one good one opens it; no request has to find out."""
    upstream.health_status = 503
    async with tended(upstream, health=Check(path="/health", every_s=0.02)) as (deployment, backends, _):
        await until(lambda: backends.health.unhealthy() == {deployment.id})
        assert backends.health.report()[deployment.id] == {"state": "down", "reason": "status 503"}
        upstream.health_status = 200
        await until(lambda: backends.health.unhealthy() == frozenset())


async def test_a_backend_that_is_gone_fails_its_check(upstream):
    """No answer at all is a failed check as well."""
    changes = {"base_url": "http://127.0.0.1:1/v1", "health": Check(path="/health", every_s=0.02)}
    async with tended(upstream, **changes) as (deployment, backends, _):
        await until(lambda: backends.health.unhealthy() == {deployment.id})
        assert backends.health.report()[deployment.id]["reason"] == "backend_unreachable"


async def test_nothing_is_checked_that_policy_dropped(upstream, monkeypatch):
    """With a newer policy that has no such backend the checks end."""
    monkeypatch.setattr(tending, "_LOOK_EVERY_S", 0.01)
    async with tended(upstream, health=Check(path="/health", every_s=0.01)) as (_, _backends, policy):
        await until(lambda: upstream.checks > 2)
        policy.clear()
        await asyncio.sleep(0.05)
        before = upstream.checks
        await asyncio.sleep(0.1)
        assert upstream.checks == before


async def test_connections_are_opened_ahead_and_used(upstream):
    """So many stand ready before the first request, which uses one of them."""
    async with tended(upstream, warm_connections=3) as (deployment, backends, _):
        await until(lambda: upstream.connections == 3)
        await asyncio.sleep(0.02)
        assert await backends.remote(deployment.backend).get("/health") == 200
        assert upstream.connections == 3


async def test_a_connection_that_was_opened_ahead_and_closed_costs_no_request(upstream):
    """A backend that closes idle connections soon: the request is sent again, on a fresh one."""
    async with tended(upstream, warm_connections=2) as (deployment, backends, _):
        await until(lambda: upstream.connections == 2)
        await asyncio.sleep(0.02)
        await upstream.drop_idle_connections()
        await Tending(backends, dict)._ask(deployment)
        assert len(upstream.requests) == 1


async def test_a_model_that_goes_cold_is_asked_for_one_token(upstream):
    """At the start, and again when nobody asked for so long; one at a time, and not where real requests come."""
    upstream.default = Script(text="hi")
    async with tended(upstream, cold_start_s=1.0) as (deployment, backends, _):
        await until(lambda: len(upstream.requests) == 1)
        assert upstream.requests[0].json["max_tokens"] == 1
        assert upstream.requests[0].json["model"] == "m"
        await until(lambda: len(upstream.requests) == 2)
        assert upstream.requests[1].at - upstream.requests[0].at > 0.9
        assert backends.health.idle_s(deployment) < 1.0


async def test_a_warm_up_that_fails_counts_for_health(upstream):
    """What it tells of the deployment is no worse than what a request tells."""
    upstream.default = Script(status=401)
    async with tended(upstream, cold_start_s=60.0) as (deployment, backends, _):
        await until(lambda: backends.health.unhealthy() == {deployment.id})
