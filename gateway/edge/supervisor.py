"""Keeps the edge process running: starts it, watches it, starts it again, leaves nothing behind.

    spawn -> running --exit----------------------> wait 0.2 s, doubling to 10 s; 0.2 s after a stable run -> spawn
                    '-no pong, or a step too long-> SIGKILL -'

A process that ends with an illegal instruction has a llama.cpp whose fastest kernels do not run on this processor: from
then on it is started with the plain ones. The gateway does not wait for any of it: without the edge it serves on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import structlog

import gateway
from gateway.edge import hub
from gateway.edge.heartbeat import Heartbeat, Silent
from gateway.errors import SettingsError

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 10.0
_STABLE_S = 30.0
_TERM_S = 2.0
_LAST_WORDS_S = 0.5
_LONGEST_LOG_BYTES = 4_096
_LONGEST_SOCKET_PATH = 100
"""Bytes; the kernel takes 107."""
_KEPT_VARIABLES = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH"),
    *("LD_LIBRARY_PATH", "LLAMA_CPP_LIB_PATH"),  # another build of llama.cpp than the package's
)
_HUB_VARIABLES = (
    *("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_DOWNLOAD_TIMEOUT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    *("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"),
)
"""Only for a model that a hub has."""


class EdgeSupervisor:
    """An async context manager that owns the edge process. Entering starts it and does not wait until it is warm.

    `threads` decode; 0: as many as are fastest and leave the gateway a core. `n_ctx` is the KV cache in tokens, for all
    requests and kept prefixes together; `parallel` the most requests answered at once. The process counts as hung, and
    is killed, when it gives no sign of life for `silence_s`, or when one step takes longer than `longest_step_s`.
    `memory_bytes` is asked at each start for what weights and KV cache may take; 0: what the machine has.
    """

    def __init__(
        self,
        *,
        model: str,
        socket_path: Path,
        state_dir: Path,
        threads: int = 0,
        n_ctx: int = 8_192,
        parallel: int = 16,
        silence_s: float = 10.0,
        longest_step_s: float = 30.0,
        memory_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        if len(os.fsencode(socket_path)) > _LONGEST_SOCKET_PATH:
            raise SettingsError(f"the path of the edge's socket is too long for a Unix socket: {socket_path}")
        self._socket_path = socket_path
        self._command = [
            *(sys.executable, "-m", "gateway.edge.process"),
            *("--socket", str(socket_path)),
            *("--state", str(state_dir)),
            *("--model", model),
            *("--threads", str(threads)),
            *("--n-ctx", str(n_ctx)),
            *("--parallel", str(parallel)),
        ]
        self._plain = False
        """Without the kernels for weights in layouts of their own (AMX and the like)."""
        self._with_hub = model.startswith(hub.PREFIX)
        self._memory_bytes = memory_bytes
        self._silence_s = silence_s
        self._longest_step_s = longest_step_s
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger()
        self.restarts = 0
        """How often it was started again."""

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def __aenter__(self) -> Self:
        self._socket_path.parent.mkdir(parents=True, exist_ok=True)
        await self._check_nobody_listens()
        self._task = asyncio.create_task(self._keep_running(), name="edge supervisor")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _check_nobody_listens(self) -> None:
        """Another gateway's edge must not lose its socket to ours; one that nobody listens on is a leftover."""
        try:
            _, writer = await asyncio.open_unix_connection(self._socket_path)
        except OSError:
            return
        writer.close()
        raise SettingsError(f"another gateway's edge listens on {self._socket_path}: use another state folder")

    async def _keep_running(self) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            started = time.monotonic()
            try:
                await self._run_once()
            except OSError as error:
                self._log.error("edge not started", error=str(error))
            if time.monotonic() - started > _STABLE_S:
                delay_s = _FIRST_DELAY_S
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            self.restarts += 1

    async def _run_once(self) -> None:
        """One life of the process. However this ends, the process has ended, too."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *("--parent", str(os.getpid())),
            *("--memory", str(self._memory_bytes())),
            *(("--plain",) if self._plain else ()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(with_hub=self._with_hub),
        )
        self._process = process
        self._log.info("edge started", pid=process.pid)
        try:
            async with asyncio.TaskGroup() as tasks:
                relay = tasks.create_task(self._relay_log(process))
                watch = tasks.create_task(self._watch(process))
                status = await process.wait()
                watch.cancel()
                with suppress(TimeoutError):  # its last words; a pipe that somebody else holds open is not waited for
                    await asyncio.wait_for(relay, _LAST_WORDS_S)
            self._log.warning("edge ended", pid=process.pid, status=status)
            if status == -signal.SIGILL and not self._plain:
                self._plain = True
                self._log.error(
                    "edge has plain kernels only", why="this build of llama.cpp has some that cannot run here"
                )
        finally:
            await self._end(process)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """SIGTERM, then SIGKILL. Ends the process even when this is cancelled."""
        try:
            if process.returncode is None:
                process.terminate()
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), _TERM_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            self._socket_path.unlink(missing_ok=True)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Kills the process when it hangs."""
        heartbeat = Heartbeat(self._socket_path, silence_s=self._silence_s, longest_step_s=self._longest_step_s)
        try:
            await heartbeat.watch()
        except Silent as silent:
            self._log.error("edge hangs", pid=process.pid, why=str(silent))
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)

    async def _relay_log(self, process: asyncio.subprocess.Process) -> None:
        """The process's stderr becomes log lines of this one: its own JSON lines, and what native code prints."""
        stream = process.stderr
        rest = b""
        while stream is not None and (data := await stream.read(_LONGEST_LOG_BYTES)):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LONGEST_LOG_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._relay(line)

    def _relay(self, line: bytes) -> None:
        text = line.decode("utf-8", errors="replace").strip()
        if not text:
            return
        try:
            fields = msgspec.json.decode(text, type=dict[str, object])
        except msgspec.DecodeError:
            self._log.warning("edge says", text=text[:_LONGEST_LOG_BYTES])
            return
        event = str(fields.pop("event", "edge says"))
        level = str(fields.pop("level", "info"))
        write = self._log.info if level in {"debug", "info"} else self._log.warning
        write(event, edge=fields)


def _environment(*, with_hub: bool) -> dict[str, str]:
    """What the process needs of ours: no keys but a hub's, where it fetches its model from one.

    GGML_NO_BACKTRACE: a crash must not start a debugger.
    """
    names = (*_KEPT_VARIABLES, *_HUB_VARIABLES) if with_hub else _KEPT_VARIABLES
    kept = {name: os.environ[name] for name in names if name in os.environ}
    root = str(Path(gateway.__file__).resolve().parent.parent)
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH", ""))))
    return kept | {
        "GGML_NO_BACKTRACE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_TOP_PAD_": "0",
    }
