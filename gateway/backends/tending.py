"""What is done for backends while nobody asks: checks, connections opened ahead, requests that keep a model warm.

Only where policy says so (`health`, `warm_connections`, `cold_start` of a backend), and for as long as the policy that
says so is in force. One task for each kind of work and backend: one that hangs holds nobody else up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping

import structlog

from gateway.backends.call import Call
from gateway.backends.pool import Backends
from gateway.errors import BackendError, FirstdraftError
from gateway.inference.deployment import Backend, Deployment
from gateway.inference.events import Event
from gateway.telemetry.record import AttemptRecord
from gateway.wire.openai_chat_request import decode_request

_LOOK_EVERY_S = 1.0
"""How soon a newer policy's backends are tended."""
_LONGEST_CHECK_S = 5.0
_CONNECTIONS_EVERY_S = 10.0
"""Idle connections are opened anew long before the pool drops them."""
_WARM_UP_TENANT = "firstdraft"
_WARM_UP = b'{"model": "warm-up", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}'

Work = Callable[[Backend], Coroutine[None, None, None]]


class Tending:
    """Tends the backends of the policy in force.

    Args:
        backends: their clients and health.
        deployments: gives those of the policy in force, by id.
    """

    def __init__(self, backends: Backends, deployments: Callable[[], Mapping[str, Deployment]]) -> None:
        self._backends = backends
        self._deployments = deployments

    async def run(self) -> None:
        """Until it is cancelled."""
        running: dict[tuple[Backend, str], asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                running = {key: task for key, task in running.items() if not task.done()}
                for backend in self._in_force():
                    for kind, work in self._works(backend):
                        if (backend, kind) not in running:
                            task = group.create_task(work(backend), name=f"{kind} {backend.name}")
                            running[backend, kind] = task
                await asyncio.sleep(_LOOK_EVERY_S)

    def _in_force(self) -> set[Backend]:
        return {at.backend for at in self._deployments().values() if not at.is_edge}

    def _works(self, backend: Backend) -> Iterator[tuple[str, Work]]:
        if backend.health is not None:
            yield "check", self._check
        if backend.warm_connections:
            yield "connect", self._connect
        if backend.cold_start_s is not None:
            yield "warm up", self._warm_up

    async def _check(self, backend: Backend) -> None:
        while backend.health is not None and backend in self._in_force():
            every_s = backend.health.every_s
            try:
                async with asyncio.timeout(min(every_s, _LONGEST_CHECK_S)):
                    status = await self._backends.remote(backend).get(backend.health.path)
                failure = "" if 200 <= status <= 299 else f"status {status}"
            except TimeoutError:
                failure = "no answer in time"
            except BackendError as error:
                failure = error.code or error.type
            self._backends.health.checked(backend.name, failure)
            # Many gateways that were started together need not all ask at the same moment.
            await asyncio.sleep(every_s * random.uniform(0.9, 1.1))  # noqa: S311 - no secret

    async def _connect(self, backend: Backend) -> None:
        while backend in self._in_force():
            try:
                async with asyncio.timeout(backend.timeouts.connect_s):
                    await self._backends.remote(backend).open_ahead(backend.warm_connections)
            except (TimeoutError, BackendError) as error:
                reason = error.detail if isinstance(error, BackendError) else "no connection in time"
                structlog.get_logger().info("not_connected_ahead", backend=backend.name, reason=reason)
            await asyncio.sleep(_CONNECTIONS_EVERY_S)

    async def _warm_up(self, backend: Backend) -> None:
        """One request at a time, and none where a real one came lately."""
        while backend.cold_start_s is not None and backend in self._in_force():
            due_s = backend.cold_start_s
            for deployment in [at for at in self._deployments().values() if at.backend == backend]:
                left_s = backend.cold_start_s - self._backends.health.idle_s(deployment)
                if left_s <= 0:
                    await self._ask(deployment)
                    left_s = backend.cold_start_s
                due_s = min(due_s, left_s)
            await asyncio.sleep(max(due_s, _LOOK_EVERY_S))

    async def _ask(self, deployment: Deployment) -> None:
        loop, record = asyncio.get_running_loop(), AttemptRecord(deployment=deployment.id)
        call = Call(
            request=decode_request(_WARM_UP),
            deployment=deployment,
            max_tokens=1,
            tenant=_WARM_UP_TENANT,
            record=record,
            deadline=loop.time() + deployment.backend.timeouts.total_s,
            background=True,
        )
        began, trial, failure = loop.time(), self._backends.health.begin_anyway(deployment), ""
        try:
            await self._backends.client(deployment.backend).answer(call, _pass_by)
            trial.succeeded()
        except FirstdraftError as error:
            trial.failed(error)
            failure = error.code or error.type
        finally:
            trial.given_up()
        took_s = round(loop.time() - began, 3)
        tokens = 0 if record.usage is None else record.usage.input_tokens + record.usage.output_tokens
        structlog.get_logger().info(
            "warmed_up", deployment=deployment.id, took_s=took_s, tokens=tokens, failure=failure
        )


async def _pass_by(_event: Event) -> None:
    return
