"""Starting, draining, and with more than one worker supervising.

One worker serves in this process. More are processes of their own that share one listening socket; this process then
keeps the store and the edge for them, and starts a worker again that dies.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import structlog
from aiohttp import web

from gateway.errors import SettingsError
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.history import PolicyHistory
from gateway.policy.store import PolicyStore
from gateway.routing.proven import load_proven
from gateway.server.admin.access import admin_key_hash
from gateway.server.app import build_admin_app, build_app
from gateway.server.connections import Runner
from gateway.server.tls import certificate_of
from gateway.server.workers import supervise
from gateway.services import Machine, Services, open_machine, open_services, open_store
from gateway.settings import Settings

LONGEST_LINE = 8_190
"""Bytes of a URL, and of one header: what common proxies pass on."""
MOST_HEADERS = 128
T = TypeVar("T")
U = TypeVar("U")

_BACKLOG = 1_024
_CANCEL_S = 2.0
"""For requests that are still there after draining: they are cancelled, tell their clients, and settle."""
_KEEPALIVE_S = 75.0
"""Longer than the 60 s after which common load balancers drop an idle connection, so that we are never first."""


async def serve(settings: Settings, on_listening: Callable[[Listening], None] | None = None) -> None:
    """Run the gateway until SIGTERM or SIGINT; a second one ends it without draining.

    Raises:
        SettingsError: an address that cannot be bound, a state folder in use, a keyless policy on a public address.
        PolicyError: the policy folder has mistakes.
    """
    stop, now = _stop_at_signals()
    policies = PolicyStore(settings.policies, os.environ, load=load_proven, history=PolicyHistory(settings.state))
    certificate_of(settings)  # before anything is started, and by whoever starts workers
    admin_key_hash(settings)
    with bind(settings) as listener:
        async with AsyncExitStack() as stack:
            admin = None if settings.admin_port is None else stack.enter_context(bind_admin(settings))
            policy, store_url = await _both(
                stack.enter_async_context(policies), stack.enter_async_context(open_store(settings))
            )
            _refuse_keyless_in_public(settings, policy.current)
            edge_models = policy.current.edge_models if settings.edge else ()
            machine = await stack.enter_async_context(open_machine(settings, store_url, edge_models))
            if settings.workers > 1:
                if on_listening is not None:
                    on_listening(Listening(url_of(settings, listener), policy.current))
                await supervise(settings, machine, listener, admin, stop)
            else:
                found = await stack.enter_async_context(
                    listening(settings, machine, policy, listener, now, admin=admin)
                )
                if on_listening is not None:
                    on_listening(found)
                await stop.wait()


async def _both(one: Awaitable[T], other: Awaitable[U]) -> tuple[T, U]:
    """Wait for both at once, since each waits for something outside; raises what either raised, when both are over."""
    results = await asyncio.gather(one, other, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("tuple[T, U]", tuple(results))


@dataclass(frozen=True, slots=True)
class Listening:
    """A gateway that takes connections: where, and under which policy."""

    url: str
    policy: CompiledPolicy
    services: Services | None = None
    admin_url: str | None = None
    """Of the admin surface, where it has a port of its own."""


@asynccontextmanager
async def listening(
    settings: Settings,
    machine: Machine,
    policy: PolicyStore,
    listener: socket.socket,
    now: asyncio.Event,
    *,
    admin: socket.socket | None = None,
) -> AsyncIterator[Listening]:
    """Serve on `listener` while the context is open; at its end, drain for `settings.drain_s`, or until `now`.

    The admin surface is served on `admin`, where it has a port of its own, until all is drained.
    """
    certificate = certificate_of(settings)
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(settings, machine, policy))
        tls = None if certificate is None else await stack.enter_async_context(certificate.followed())
        runner = _runner(build_app(services))
        await runner.setup()
        site = web.SockSite(runner, listener, backlog=_BACKLOG, ssl_context=tls)
        try:
            await site.start()
            url = url_of(settings, listener)
            structlog.get_logger().info("listening", url=url, policy=policy.current.version)
            admin_url = None
            if admin is not None:
                await stack.enter_async_context(_administered(services, admin, tls))
                admin_url = url_of(settings, admin)
                structlog.get_logger().info("admin_listening", url=admin_url)
            yield Listening(url, policy.current, services, admin_url)
        finally:
            services.drain()
            structlog.get_logger().info("draining", in_flight=services.in_flight, limit_s=settings.drain_s)
            await site.stop()
            try:
                await _drained(services, settings.drain_s, now)
            finally:
                await runner.cleanup()


def _runner(app: web.Application) -> Runner:
    return Runner(
        app,
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,  # see `body`
        keepalive_timeout=_KEEPALIVE_S,
        shutdown_timeout=_CANCEL_S,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
        max_headers=MOST_HEADERS,
    )


@asynccontextmanager
async def _administered(services: Services, listener: socket.socket, tls: ssl.SSLContext | None) -> AsyncIterator[None]:
    runner = _runner(build_admin_app(services))
    await runner.setup()
    try:
        await web.SockSite(runner, listener, backlog=_BACKLOG, ssl_context=tls).start()
        yield
    finally:
        await runner.cleanup()


async def _drained(services: Services, limit_s: float, now: asyncio.Event) -> None:
    """Wait until no request runs any more, for `limit_s` or until `now`; then end the rest, and tell their clients.

    aiohttp's own wait would take twice its limit, and tell nobody.
    """
    waiting = [asyncio.create_task(event.wait(), name="draining") for event in (services.idle, now)]
    await asyncio.wait(waiting, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    services.cut()
    await asyncio.wait(waiting[:1], timeout=_CANCEL_S)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


def bind(settings: Settings) -> socket.socket:
    """Bind the listening socket.

    Raises:
        SettingsError: the address is in use, or not this machine's.
    """
    return _bind(settings.host, settings.port, "--host/--port (FIRSTDRAFT_HOST/FIRSTDRAFT_PORT)")


def bind_admin(settings: Settings) -> socket.socket:
    """Bind the admin surface's own socket; raises as `bind` does."""
    what = "--admin-host/--admin-port (FIRSTDRAFT_ADMIN_HOST/FIRSTDRAFT_ADMIN_PORT)"
    return _bind(settings.admin_host, settings.admin_port or 0, what)


def _bind(host: str, port: int, what: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"{what} {host}:{port}: cannot listen there: {error.strerror}") from None
    return listener


def url_of(settings: Settings, listener: socket.socket) -> str:
    """The base URL that clients use."""
    scheme = "http" if settings.tls_cert is None else "https"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _stop_at_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set by the first signal: stop; by the second: stop at once."""
    stop, now = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop, now


def _refuse_keyless_in_public(settings: Settings, policy: CompiledPolicy) -> None:
    if policy.keyless_tenant is not None and not settings.loopback and not policy.keys:
        message = (
            f"--host (FIRSTDRAFT_HOST) {settings.host} can be reached from other machines, but no tenant in "
            f"{settings.policies} has a key, and tenant {policy.keyless_tenant!r} needs none: anyone could spend its "
            "budget. Give a tenant a key ('firstdraft keys new TENANT'), or listen on 127.0.0.1."
        )
        raise SettingsError(message)
