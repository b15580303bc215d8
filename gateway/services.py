"""The composition root: opens what lives as long as the process, in order, and closes it in reverse.

`open_store` and `open_machine` start what a machine has once (the embedded store, the edge process), `open_services`
what each worker has.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import structlog

from gateway.backends.edges import Edges
from gateway.backends.health import Health
from gateway.backends.pool import Backends
from gateway.backends.tending import Tending
from gateway.budgets.ledger import Ledger
from gateway.cache.flights import Flights
from gateway.cache.prompts import PromptCache
from gateway.cache.sealing import Sealer, read_keys
from gateway.cache.secret import follow_secret, shared_secret
from gateway.conversations.kept import Conversations
from gateway.edge.client import EdgeClient
from gateway.edge.group import EdgeGroup
from gateway.edge.shared_minilm import SharedMiniLM
from gateway.errors import EdgeError, EdgeUnavailable, SettingsError, StoreUnavailable
from gateway.jobs.jobs import Jobs
from gateway.modes.confidence import Confidence
from gateway.pipeline import Pipeline
from gateway.policy.store import PolicyStore
from gateway.retrieval.found import FoundBefore
from gateway.retrieval.prompt import Passages
from gateway.retrieval.stores import Retrieval
from gateway.routing.with_tenants import WithTenants
from gateway.settings import Settings
from gateway.store.client import Store
from gateway.store.embedded import EmbeddedValkey
from gateway.store.members import EVERY_S, Members
from gateway.telemetry.decision_log import DecisionLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recent import Recent
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_log import Form, RequestLog
from gateway.telemetry.snapshot import EdgeSnapshot, Snapshot
from gateway.tenants.registry import TenantRegistry
from gateway.tenants.vouching import Vouching

_RETIRE_EVERY_S = 5.0
_EDGE_WAIT_S = 180.0
"""After so long a gateway whose edge never became warm serves without it."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers of one machine share: where the store is, and where the edge listens (None: no edge)."""

    store_url: str
    edge_socket: str | None
    other_edges: dict[str, str] = {}
    """The sockets of further edges, by their model."""


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[str]:
    """Start the embedded store, unless settings name a server; gives its URL as soon as it answers.

    Raises:
        SettingsError: the state folder cannot be used, or another gateway uses it.
    """
    make_state_folder(settings.state)
    if settings.redis_url is not None:
        yield settings.redis_url
    else:
        async with EmbeddedValkey(settings.state) as store:
            yield store.url


@asynccontextmanager
async def open_machine(settings: Settings, store_url: str, edge_models: Sequence[str]) -> AsyncIterator[Machine]:
    """Start an edge process for each of `edge_models` beside the store; they become warm on their own time."""
    if not edge_models:
        yield Machine(store_url=store_url, edge_socket=None)
        return
    group = EdgeGroup(
        edge_models,
        state_dir=settings.state,
        threads=settings.edge_threads,
        n_ctx=settings.edge_context,
        memory_bytes=settings.edge_memory_mb * 1_000_000,
    )
    async with group:
        sockets = {model: str(path) for model, path in group.sockets.items()}
        first = sockets.pop(edge_models[0])
        yield Machine(store_url=store_url, edge_socket=first, other_edges=sockets)


@dataclass(slots=True, kw_only=True)
class Readiness:
    """How each part is. `ready` when requests can be served."""

    ready: bool
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The JSON body of `/readyz`."""
        return {"status": "ready" if self.ready else "not ready", **self.parts}


@dataclass(slots=True, kw_only=True)
class Services:
    """What one worker's requests share."""

    settings: Settings
    policy: PolicyStore
    store: Store
    ledger: Ledger
    backends: Backends
    conversations: Conversations
    members: Members
    pipeline: Pipeline
    retrieval: Retrieval
    metrics: Metrics
    started_at: int
    """Unix time, in seconds."""
    recent: Recent = field(default_factory=Recent)
    log: RequestLog = field(default_factory=RequestLog)
    draining: bool = False
    cutting: bool = False
    """The time to drain is over: what still runs is cancelled."""
    tasks: set[asyncio.Task[Any] | None] = field(default_factory=set)
    """One for each request that is being answered."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while the gateway drains and no request is in flight."""
    edge_was_warm: bool = False
    registry: TenantRegistry
    with_tenants: WithTenants = field(default_factory=WithTenants)
    """The policy's tenants and those of the store."""
    vouching: Vouching = field(default_factory=Vouching)
    jobs: Jobs = field(init=False)
    loopback: bool = field(init=False)
    """Only this machine can connect; worked out once."""

    def __post_init__(self) -> None:
        self.loopback = self.settings.loopback

    def drain(self) -> None:
        """Take no new requests; `idle` is set when the last one is over."""
        self.draining = True
        self.jobs.drain()
        if not self.tasks:
            self.idle.set()

    def cut(self) -> None:
        """End what still runs: each client is told, and settled."""
        self.cutting = True
        for task in self.tasks:
            if task is not None:
                task.cancel()

    @property
    def edge(self) -> EdgeClient | None:
        """The first edge; there may be more in `backends.edges`."""
        return self.backends.edges.first

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        return len(self.tasks)

    def begin(self, task: asyncio.Task[Any] | None) -> None:
        """A request has arrived, answered by `task`; `end` is called when it is over."""
        self.tasks.add(task)

    def end(self, task: asyncio.Task[Any] | None) -> None:
        """A request is over, however it ended."""
        self.tasks.discard(task)
        if self.draining and not self.tasks:
            self.idle.set()

    def finish(self, record: RequestRecord) -> None:
        """One request is over: one log line, the metrics, and for a while its record."""
        self.metrics.end()
        self.finish_at_once(record)

    def finish_at_once(self, record: RequestRecord, form: Form | None = None) -> None:
        """As `finish`, for a request that was answered in the moment of its arrival: it was never in flight.

        `form` is that of its log line, where it is known.
        """
        self.metrics.observe(record)
        self.log.write(record, form)
        if record.surface:
            self.recent.add(record)

    def finish_unasked(self, record: RequestRecord) -> None:
        """An answer is there that no request waited for: what it cost is told all the same."""
        self.metrics.observe(record)
        self.log.write(record)

    def finish_job(self, record: RequestRecord) -> None:
        """An answer is there that its request did not wait for: its tenant can look up what it cost."""
        self.finish_at_once(record)

    async def renew_tenants(self) -> None:
        """Have the tenants of the store in force as they are known now."""
        self.with_tenants.give(self.registry.tenants)
        await self.policy.complete(self.with_tenants.complete)

    async def snapshot(self) -> Snapshot:
        """What is true now, for a scrape."""
        return Snapshot(
            version=version("firstdraft"),
            policy=self.policy.current.version,
            policy_refused=self.policy.refused is not None,
            store_up=self.store.healthy,
            jobs_running=self.jobs.running,
            edges=[await _edge_snapshot(edge) for edge in self.backends.edges],
            loads=self.backends.loads,
        )

    async def readiness(self) -> Readiness:
        """Ask every part. Takes as long as the store's time limit at most."""
        policy: dict[str, Any] = {"ok": True, "version": self.policy.current.version}
        if self.policy.refused:
            policy["refused"] = self.policy.refused
        try:
            await self.store.ping()
            policy["workers"] = {member.name: member.version for member in await self.members.all()}
            store: dict[str, Any] = {"ok": True}
        except StoreUnavailable as error:
            store = {"ok": False, "reason": error.message}
        edge = self._edge_readiness()
        parts = {"policy": policy, "store": store, "edge": edge, "backends": _backends_readiness(self.backends)}
        if self.draining:
            parts["gateway"] = {"ok": False, "reason": "draining"}
        others = [_edge_report(client) for client in self.backends.edges if client is not self.edge]
        if others:
            edge["others"] = others
        # An edge that was warm once and restarts makes a degraded gateway, not one to take out of service; nor does one
        # that never gets warm keep it out for good.
        waiting_for_edge = not edge["ok"] and not self.edge_was_warm and time.time() - self.started_at < _EDGE_WAIT_S
        return Readiness(ready=store["ok"] and not self.draining and not waiting_for_edge, parts=parts)

    def _edge_readiness(self) -> dict[str, Any]:
        if self.edge is None:
            return {"ok": True, "state": "off", "reason": "the edge is switched off, or the policy has none"}
        return _edge_report(self.edge)


def _edge_report(edge: EdgeClient) -> dict[str, Any]:
    status = edge.status
    answer: dict[str, Any] = {"ok": status.state == "warm", "state": status.state, "model": status.model}
    if status.reason:
        answer["reason"] = status.reason
    return answer


async def _edge_snapshot(edge: EdgeClient) -> EdgeSnapshot:
    status, figures = edge.status, {}
    if status.state == "warm":
        try:
            figures = msgspec.structs.asdict(await edge.stats())
        except EdgeError as error:
            structlog.get_logger().warning("edge_stats_missing", model=status.model, reason=error.message)
    return EdgeSnapshot(model=status.model, state=status.state, figures=figures)


_SAID = {
    "open": "fails",
    "half_open": "failed, and the next request probes it",
    "probing": "failed, and is probed",
    "paused": "asked for a pause",
    "down": "is down",
}
"""What people are told of a deployment's state."""


def _backends_readiness(backends: Backends) -> dict[str, Any]:
    """How deployments are: for people; a gateway whose backends fail is as ready as it can be."""
    failing = backends.health.report()
    if not failing:
        return {"ok": True}
    told = (f"{name} {_SAID[how['state']]} ({how['reason']})" for name, how in failing.items())
    return {"ok": False, "reason": ", ".join(told), "unhealthy": failing}


@asynccontextmanager
async def open_services(settings: Settings, machine: Machine, policy: PolicyStore) -> AsyncIterator[Services]:
    """Open what one worker needs, around a policy that is loaded already."""
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        store = await stack.enter_async_context(Store(machine.store_url, timeout_s=settings.store_timeout_s))
        ledger = await stack.enter_async_context(Ledger(store, lease_s=settings.lease_s))
        edges = await _open_edges(stack, machine)
        health = Health(time.monotonic, metrics.health_changed)
        minilm = SharedMiniLM()
        stack.callback(minilm.close)
        trust = Confidence(settings.state)
        backends = await stack.enter_async_context(Backends(edges, trust, health=health, minilm=minilm))
        secret = await shared_secret(store)
        cache = await stack.enter_async_context(
            PromptCache(store, secret=secret, sealer=_sealer(settings), on_count=metrics.count_cache)
        )
        flights = await stack.enter_async_context(Flights(cache))

        found_before = FoundBefore(store, secret, cache.codec)
        retrieval = await stack.enter_async_context(Retrieval(settings.state, found_before, minilm))

        def finish(record: RequestRecord) -> None:
            services.finish_unasked(record)

        def take_secret(other: bytes) -> None:
            cache.secret = found_before.secret = other

        decisions = DecisionLog(settings.state, settings.record_decisions)
        services = Services(
            settings=settings,
            policy=policy,
            store=store,
            ledger=ledger,
            backends=backends,
            conversations=Conversations(store, _sealer(settings)),
            members=Members(store),
            registry=TenantRegistry(store),
            retrieval=retrieval,
            pipeline=Pipeline(
                ledger=ledger,
                cache=cache,
                flights=flights,
                backends=backends,
                passages=Passages(retrieval),
                finish=finish,
                decisions=decisions,
            ),
            metrics=metrics,
            started_at=int(time.time()),
        )
        stack.callback(services.log.close)
        await _know_tenants(stack, services)
        services.jobs = await stack.enter_async_context(_jobs(services))
        work = _background(services, decisions)
        for coroutine, name in (*work, (follow_secret(store, secret, take_secret), "follow the cache's secret")):
            stack.push_async_callback(_end, asyncio.create_task(coroutine, name=name))
        yield services


def _background(services: Services, decisions: DecisionLog) -> tuple[tuple[Coroutine[Any, Any, None], str], ...]:
    """What goes on beside the requests as long as the worker lives, with its tasks' names."""
    deployments = Tending(services.backends, lambda: services.policy.current.deployments)
    return (
        (_retire_backends(services), "retire backends"),
        (deployments.run(), "tend backends"),
        (_note_warm_edge(services), "note the warm edge"),
        (_warm_classifiers(services), "warm the classifiers"),
        (_report_policy(services), "report policy"),
        (services.registry.follow(services.renew_tenants), "follow tenants"),
        (decisions.keep_writing(), "record decisions"),
    )


def _jobs(services: Services) -> Jobs:
    settings = services.settings
    return Jobs(
        services.store,
        pipeline=services.pipeline,
        policy=lambda: services.policy.current,
        conversations=services.conversations,
        sealer=_sealer(settings),
        lease_s=settings.lease_s,
        lines_at_once=settings.batch_lines,
        files_bytes=settings.files_bytes,
        finish=services.finish_job,
        on_begin=services.begin,
        on_end=services.end,
    )


async def _open_edges(stack: AsyncExitStack, machine: Machine) -> Edges:
    if machine.edge_socket is None:
        return Edges()
    first = await stack.enter_async_context(EdgeClient(Path(machine.edge_socket)))
    others = {
        model: await stack.enter_async_context(EdgeClient(Path(path))) for model, path in machine.other_edges.items()
    }
    return Edges(first, others)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


async def _warm_classifiers(services: Services) -> None:
    """Compile what looks for personal data beside the start: readiness does not wait for it, nor does a request."""
    for tenant in services.policy.current.tenants.values():
        if tenant.classifier is not None:
            await asyncio.to_thread(tenant.classifier.warm)


async def _note_warm_edge(services: Services) -> None:
    """An edge that was warm once, or failed for good, is waited for no longer."""
    if services.edge is not None:
        with contextlib.suppress(EdgeUnavailable):
            await services.edge.until_warm()
        services.edge_was_warm = True


async def _retire_backends(services: Services) -> None:
    """Close the connections of backends that a newer policy no longer has."""
    before = services.policy.current
    while True:
        await asyncio.sleep(_RETIRE_EVERY_S)
        current = services.policy.current
        if current.version != before.version or current.backends != before.backends or current.stores != before.stores:
            if current.edge_models != before.edge_models:
                structlog.get_logger().warning("edge_models_changed", hint="they are loaded at the next start")
            before = current
            await services.backends.retire(tuple(current.backends.values()))
            await services.retrieval.retire(tuple(current.stores.values()))


async def _report_policy(services: Services) -> None:
    """Tell all others which policy is in force here; at the end, that this worker is gone."""
    try:
        while True:
            with contextlib.suppress(StoreUnavailable):
                policy = services.policy
                await services.members.report(policy.current.version, refused=policy.refused is not None)
            await asyncio.sleep(EVERY_S)
    finally:
        with contextlib.suppress(StoreUnavailable):
            await services.members.leave()


async def _know_tenants(stack: AsyncExitStack, services: Services) -> None:
    """Have what knows tokens ready, and the tenants of the store in force; without the store, those that come later."""
    await stack.enter_async_context(services.vouching)
    if services.policy.current.issuers:
        services.vouching.load()
    try:
        if await services.registry.look():
            await services.renew_tenants()
    except StoreUnavailable as error:
        structlog.get_logger().warning("tenants_not_read", reason=error.message)


def _sealer(settings: Settings) -> Sealer | None:
    """What encrypts cached answers. Raises SettingsError: the keys cannot be used."""
    text = settings.cache_keys
    if text is None:
        return None
    try:
        if text.startswith("file:"):
            text = Path(text.removeprefix("file:")).read_text("ascii")
        return Sealer(read_keys(text))
    except OSError as error:
        message = f"--cache-keys (FIRSTDRAFT_CACHE_KEYS): the file cannot be read: {error.strerror}"
        raise SettingsError(message) from None
    except ValueError as error:
        raise SettingsError(f"--cache-keys (FIRSTDRAFT_CACHE_KEYS): {error}") from None


def make_state_folder(state: Path) -> None:
    """Make the state folder, for this user alone. Raises SettingsError."""
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        message = f"--state (FIRSTDRAFT_STATE) {state}: the folder cannot be made: {error.strerror}"
        raise SettingsError(message) from None
