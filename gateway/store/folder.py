"""The embedded store's folder: private, and used by one gateway at a time.

The lock is a `flock` on an open file that the Valkey process inherits. It is free when both the gateway and its Valkey
have ended, however they ended: a gateway that starts while a killed one's Valkey still writes its data waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import signal
import stat
import tempfile
from pathlib import Path

import structlog

from gateway.errors import SettingsError

_LONGEST_SOCKET_PATH = 107
"""Bytes in `sockaddr_un.sun_path` on Linux, without the zero at its end (unix(7))."""
_LOCK_WAIT_S = 5.0
"""How long a Valkey whose gateway is gone may take to end by itself."""
_KILL_WAIT_S = 1.0
_LOCK_POLL_S = 0.02


class StoreFolder:
    """Paths below `state_dir`, and the lock. `take` before use, `release` at the end."""

    def __init__(self, state_dir: Path) -> None:
        self.path = (state_dir / "store").absolute()
        self.log = self.path / "valkey.log"
        self._lock_path = self.path / "lock"
        self._server_pid_path = self.path / "valkey.pid"
        self._lock: int | None = None
        self._short: Path | None = None

    @property
    def lock_fd(self) -> int:
        """The locked file: the server inherits it. Only while the lock is held."""
        if self._lock is None:
            raise RuntimeError("the folder is not locked")
        return self._lock

    async def take(self) -> None:
        """Make the folder (mode 0700) and lock it.

        Raises:
            SettingsError: the folder cannot be used, or another gateway uses it.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(f"state folder {self.path}: it cannot be used: {error.strerror}") from None
        try:
            await self._wait_for_lock(lock)
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        self.forget_log()

    def release(self) -> None:
        """Give the folder up. The server has ended before."""
        if self._lock is not None:
            self._server_pid_path.unlink(missing_ok=True)
            if self._short is not None:
                with contextlib.suppress(OSError):
                    self._short.rmdir()
            os.close(self._lock)
            self._lock = None

    def note_server(self, pid: int) -> None:
        """Write down who the server is, for a gateway that finds it alive after we were killed."""
        self._server_pid_path.write_text(str(pid), encoding="ascii")

    def forget_log(self) -> None:
        """Empty the server's log; it goes on writing at its beginning."""
        self.log.write_bytes(b"")

    def last_log_line(self) -> str:
        """What the server said last; empty when it said nothing."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""

    def socket_path(self) -> Path:
        """Where the server listens: in the folder, or where that path is too long in a private one of the system's."""
        path = self.path / "valkey.sock"
        if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
            return path
        self._short = _private_folder(hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16])
        structlog.get_logger().warning(
            "store_socket_moved",
            folder=str(self._short),
            reason=f"{path} is longer than the {_LONGEST_SOCKET_PATH} bytes that a Unix socket's path may have",
        )
        return self._short / "valkey.sock"

    async def _wait_for_lock(self, lock: int) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LOCK_WAIT_S
        while not _try_lock(lock):
            holder = _read_pid(lock)
            if holder is not None and _is_alive(holder):
                raise SettingsError(
                    f"state folder {self.path}: another gateway (process {holder}) uses it. "
                    "Stop that one, or give this one a folder of its own with --state (FIRSTDRAFT_STATE)."
                )
            if loop.time() > deadline:
                if not self._end_orphan():
                    raise SettingsError(
                        f"state folder {self.path}: another process holds {self._lock_path} (last noted gateway: "
                        f"{holder or 'unknown'}). Stop it, or choose another folder with --state (FIRSTDRAFT_STATE)."
                    )
                deadline = loop.time() + _KILL_WAIT_S
            await asyncio.sleep(_LOCK_POLL_S)

    def _end_orphan(self) -> bool:
        """Kill a Valkey that did not end when its gateway was killed (a stopped one cannot). True if there was one."""
        try:
            pid = int(self._server_pid_path.read_text(encoding="ascii"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return False
        if os.fsencode(self.path) not in command:
            return False
        os.kill(pid, signal.SIGKILL)
        self._server_pid_path.unlink(missing_ok=True)
        return True


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(lock: int) -> int | None:
    text = os.pread(lock, 16, 0)
    return int(text) if text.isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _private_folder(name: str) -> Path:
    """A folder that only this user can enter. One that somebody else made in advance is not used."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    folder = base / f"firstdraft-{os.getuid()}-{name}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix=f"firstdraft-{name}-"))
