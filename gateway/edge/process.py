"""The edge process: `python -m gateway.edge.process --socket … --model … --state … --parent PID`.

It listens before it loads, so that workers see "starting" at once; loads the model in the thread that then decodes; is
"warm" after a first answer to nobody. A model that cannot be loaded leaves it up, "failed", with the reason.

It ends on SIGTERM, and when its parent is gone: the kernel tells it (PR_SET_PDEATHSIG), and a look at the parent's id
covers the moment before that was set. SIGINT is the parent's business. A fault in the decode thread ends it at once.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.edge.connections import Connections
from gateway.edge.log import write_fault, write_log
from gateway.edge.model_files import SHIPPED_MODEL
from gateway.edge.protocol import State, Status
from gateway.edge.room import rss_bytes
from gateway.edge.scheduler import Limits
from gateway.errors import EdgeError

if TYPE_CHECKING:
    from gateway.edge.loading import Loaded

_PR_SET_PDEATHSIG = 1
_PARENT_CHECK_S = 1.0
_JOIN_S = 1.0
_BACKLOG = 64
_GIL_SWITCH_S = 0.0005
"""A tenth of Python's own: the decode thread comes back from native code many times a second and must not wait."""
_FAULT_STATUS = 70
"""EX_SOFTWARE of sysexits.h."""
_OOM_SCORE = 500
"""Of -1000..1000: the kernel takes the edge before the gateway."""


class EdgeProcess:
    """The main thread's side: the socket, the signals, and the thread that decodes. Made inside the event loop."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._limits = Limits(cells=arguments.n_ctx, active=arguments.parallel)
        self._connections = Connections(self._status("starting", "the model is being loaded"), rss_bytes)
        self._stopped = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def serve(self) -> None:
        """Until SIGTERM, or until the parent is gone."""
        self._loop.add_signal_handler(signal.SIGTERM, self._stopped.set)
        listening = _listen(self._arguments.socket)
        server = await self._loop.create_unix_server(self._connections.make, sock=listening, backlog=_BACKLOG)
        thread = threading.Thread(target=self._decode, name="decode", daemon=True)
        thread.start()
        while not self._stopped.is_set() and os.getppid() == self._arguments.parent:
            try:
                await asyncio.wait_for(self._stopped.wait(), _PARENT_CHECK_S)
            except TimeoutError:
                continue
        server.close()
        self._arguments.socket.unlink(missing_ok=True)
        self._connections.close()
        if self._connections.engine is not None:
            self._connections.engine.stop()
            thread.join(_JOIN_S)

    def _decode(self) -> None:
        """The decode thread."""
        from gateway.edge.loading import load_engine  # noqa: PLC0415 - llama.cpp takes a while: listen first

        arguments = self._arguments
        try:
            loaded = load_engine(
                arguments.model,
                arguments.state,
                self._limits,
                threads=arguments.threads,
                plain=arguments.plain,
                memory_bytes=arguments.memory,
                deliver=lambda outputs, load: self._tell(lambda: self._connections.deliver(outputs, load)),
                tell=lambda reason: self._tell(lambda: self._connections.change(self._status("starting", reason))),
            )
            status = self._status("warm", "", loaded)
            self._tell(lambda: self._connections.attach(loaded.engine, loaded.preparation, status))
            loaded.engine.run()
        except EdgeError as error:
            reason = error.message
            write_log("error", "edge model unusable", reason=reason)
            self._tell(lambda: self._connections.change(self._status("failed", reason)))
        except BaseException:  # noqa: BLE001 - whatever it is, a process without its decode thread is of no use
            write_fault("edge fault")
            os._exit(_FAULT_STATUS)

    def _tell(self, what: Callable[[], None]) -> None:
        """Leaves the event loop something to do; nothing when it has ended."""
        if not self._stopped.is_set():
            self._loop.call_soon_threadsafe(what)

    def _status(self, state: State, reason: str, loaded: Loaded | None = None) -> Status:
        return Status(
            state=state,
            reason=reason,
            model=self._arguments.model,
            pid=os.getpid(),
            n_ctx=0 if loaded is None else loaded.n_ctx,
            fingerprint="" if loaded is None else loaded.fingerprint,
            memory_bytes=0 if loaded is None else loaded.memory_bytes,
        )


def main() -> None:
    """Runs the process until it is told to end."""
    arguments = _arguments()
    _die_with_parent(arguments.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    sys.setswitchinterval(_GIL_SWITCH_S)
    asyncio.run(_serve(arguments))


async def _serve(arguments: argparse.Namespace) -> None:
    await EdgeProcess(arguments).serve()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gateway.edge.process", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to listen on")
    parser.add_argument("--state", type=Path, required=True, help="folder for models made from others")
    parser.add_argument("--parent", type=int, required=True, help="process id of the supervisor")
    parser.add_argument("--model", default=SHIPPED_MODEL, help="name of the shipped model, a path, or hf://…")
    parser.add_argument("--threads", type=int, default=0, help="threads that decode; 0: measured")
    parser.add_argument("--n-ctx", type=int, default=8_192, help="tokens of all running requests and kept prefixes")
    parser.add_argument("--parallel", type=int, default=16, help="requests answered at once")
    parser.add_argument("--memory", type=int, default=0, help="most bytes of weights and KV cache; 0: what there is")
    parser.add_argument(
        "--plain", action="store_true", help="only kernels that run on any processor of the build's kind"
    )
    return parser.parse_args()


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the edge process has lost its parent")
    try:
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    except OSError:
        return  # only a wish


def _listen(path: Path) -> socket.socket:
    """A socket that only this user may connect to; never for a moment another's."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    return listening


if __name__ == "__main__":
    main()
