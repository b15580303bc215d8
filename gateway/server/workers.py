"""More than one worker: processes that share one listening socket, watched by the one that owns store and edge.

The parent binds the socket and passes its descriptor on; a worker that dies takes only its own requests with it, and
connections that wait in the socket's queue go to the others. Parent to worker: one JSON line on standard input
(`Orders`); SIGTERM drains a worker. Worker to parent: nothing. A worker whose parent is gone is ended by the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable

import msgspec
import structlog

from gateway.services import Machine
from gateway.settings import Settings
from gateway.telemetry.metrics import forget_worker, sharing

_RESTART_AFTER_S = 0.5
_GRACE_S = 5.0
"""Beyond the time to drain, before a worker that does not end is killed."""
_PR_SET_PDEATHSIG = 1


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told at its start."""

    settings: Settings
    machine: Machine
    listener: int
    """Descriptor of the listening socket."""
    admin: int | None = None
    """That of the admin surface's, where it has one."""
    parent: int
    """Process id of the parent, to notice one that died before the kernel could be told."""


async def supervise(
    settings: Settings, machine: Machine, listener: socket.socket, admin: socket.socket | None, stop: asyncio.Event
) -> None:
    """Run `settings.workers` workers until `stop`; then drain them."""
    orders = Orders(
        settings=settings,
        machine=machine,
        listener=listener.fileno(),
        admin=None if admin is None else admin.fileno(),
        parent=os.getpid(),
    )
    for bound in (listener, admin):
        if bound is not None:
            bound.listen(1_024)
    with sharing(settings.state) as environ:
        async with asyncio.TaskGroup() as group:
            for number in range(settings.workers):
                group.create_task(_keep_running(number, orders, {**os.environ, **environ}, stop))


async def _keep_running(number: int, orders: Orders, environ: dict[str, str], stop: asyncio.Event) -> None:
    while not stop.is_set():
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.server.worker",
            stdin=asyncio.subprocess.PIPE,
            pass_fds=(orders.listener, *(() if orders.admin is None else (orders.admin,))),
            env=environ,
        )
        structlog.get_logger().info("worker_started", worker=number, pid=process.pid)
        try:
            await _run_one(process, orders, stop)
        finally:
            await _end(process, orders.settings.drain_s)
            forget_worker(orders.settings.state, process.pid)
        if not stop.is_set():
            structlog.get_logger().error("worker_died", worker=number, pid=process.pid, status=process.returncode)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _RESTART_AFTER_S)


async def _run_one(process: asyncio.subprocess.Process, orders: Orders, stop: asyncio.Event) -> None:
    if process.stdin is not None:
        with contextlib.suppress(ConnectionError):
            process.stdin.write(msgspec.json.encode(orders, enc_hook=str) + b"\n")
            await process.stdin.drain()
            process.stdin.close()
    ended = asyncio.create_task(process.wait(), name="worker ended")
    stopped = asyncio.create_task(stop.wait(), name="gateway stops")
    try:
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (ended, stopped):
            task.cancel()
        await asyncio.wait((ended, stopped))


async def _end(process: asyncio.subprocess.Process, drain_s: float) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), drain_s + _GRACE_S)
    except TimeoutError:
        structlog.get_logger().error("worker_killed", pid=process.pid, reason="did not end within its time to drain")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def die_with(parent: int) -> None:
    """Have the kernel end this process when `parent` ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def read_orders(read: Callable[[], bytes]) -> Orders:
    """Take the parent's line.

    Raises:
        msgspec.DecodeError: it is not one.
    """
    return msgspec.json.decode(read(), type=Orders, dec_hook=lambda kind, value: kind(value))
