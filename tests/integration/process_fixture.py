"""The gateway as users run it: `firstdraft serve` in a process of its own, and its children."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Self

import httpx


class Process:
    """`firstdraft serve`; `log` grows with its JSON lines."""

    def __init__(self, policies: Path, state: Path, *flags: str) -> None:
        self.log: list[dict] = []
        self.raw = ""
        self.url = ""
        self._command = [
            *(sys.executable, "-m", "gateway.cli.main", "serve"),
            *("--policies", str(policies), "--state", str(state), "--port", "0", *flags),
        ]

    async def __aenter__(self) -> Self:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTDRAFT_")}
        environ |= {"FIRSTDRAFT_LOG_FORMAT": "json", "UPSTREAM_KEY": "sk-upstream"}
        environ["FIRSTDRAFT_STORE_TIMEOUT_S"] = "2"  # a busy test machine is not what is tested
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, env=environ
        )
        self._reading = asyncio.create_task(self._read())
        await self.until(lambda: any(line.get("event") == "listening" for line in self.log), 20)
        self.url = next(line["url"] for line in self.log if line.get("event") == "listening")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), 20)
            except TimeoutError:
                self._process.kill()
                raise
        await self._reading

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    def kill(self, number: int = signal.SIGKILL) -> None:
        self._process.send_signal(number)

    async def wait(self) -> int:
        return await self._process.wait()

    def children(self, word: str) -> list[int]:
        """Process ids of all descendants whose command line has `word`."""
        return [pid for pid in descendants(self.pid) if word in command(pid)]

    async def until(self, true, seconds: float) -> None:
        """Wait until something is true, and fail with the log when it does not become so in time."""
        end = asyncio.get_running_loop().time() + seconds
        while not true():
            if asyncio.get_running_loop().time() > end or (self._process.returncode is not None):
                raise AssertionError(f"not in time; the log says:\n{self.raw[-6000:]}")
            await asyncio.sleep(0.01)

    async def ready(self, seconds: float = 60) -> None:
        """Wait until `/readyz` says 200."""
        end = asyncio.get_running_loop().time() + seconds
        async with httpx.AsyncClient() as client:
            while True:
                answer = await client.get(f"{self.url}/readyz")
                if answer.status_code == 200:
                    return
                assert asyncio.get_running_loop().time() < end, answer.text
                await asyncio.sleep(0.05)

    async def _read(self) -> None:
        async for line in self._process.stderr:
            self.raw += line.decode(errors="replace")
            with contextlib.suppress(ValueError):
                self.log.append(json.loads(line))


def descendants(pid: int) -> list[int]:
    """Process ids below `pid`, at any depth."""
    below = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                below += [int(child), *descendants(int(child))]
    return below


def command(pid: int) -> str:
    """The command line of a process, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """The process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def short_folder():
    """A folder with a path short enough for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="fd-") as folder:
        yield Path(folder)
