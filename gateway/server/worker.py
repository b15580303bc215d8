"""One worker of several: `python -m gateway.server.worker`, started by `workers.supervise` and by nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys

from gateway.policy.store import PolicyStore
from gateway.routing.proven import load_proven
from gateway.server.garbage import collect_seldom
from gateway.server.run import listening
from gateway.server.workers import Orders, die_with, read_orders
from gateway.telemetry import log


async def _work(orders: Orders) -> None:
    settings = orders.settings
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # A terminal's Ctrl-C reaches all processes at once: the parent says when workers end.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket(fileno=orders.listener))
        admin = None if orders.admin is None else sockets.enter_context(socket.socket(fileno=orders.admin))
        async with (
            PolicyStore(settings.policies, os.environ, load=load_proven) as policy,
            listening(settings, orders.machine, policy, listener, asyncio.Event(), admin=admin),
        ):
            await stop.wait()


def main() -> None:
    """Read the orders, then serve until SIGTERM."""
    orders = read_orders(sys.stdin.buffer.readline)
    die_with(orders.parent)
    settings = orders.settings
    log.configure(level=settings.log_level, format=settings.log_format)
    collect_seldom()
    asyncio.run(_work(orders))


if __name__ == "__main__":
    main()
