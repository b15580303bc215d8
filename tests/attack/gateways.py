"""Gateways as users run them, to be killed, frozen, and given another clock."""

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import sys
import time
from pathlib import Path

LIBFAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
"""Debian's package `faketime`. Without it the clocks of gateways are not touched, and the program says so."""
CLOCKS_STEP = LIBFAKETIME.exists()
KEYS = {tenant: f"fd-{tenant}-key-for-the-attack-000000000000000000000000" for tenant in ("closed", "open")}
LEASE_S = 3


def write_policy(folder: Path, backend_url: str, tokens: int) -> None:
    """Two tenants under the same budgets: one fails closed, one open. All in windows that do not end meanwhile."""
    tenants = "".join(
        f"""
  {tenant}:
    timezone: Pacific/Auckland
    keys: [{{name: prod, sha256: {hashlib.sha256(key.encode()).hexdigest()}}}]
    budgets:
      - {{tokens: {tokens}, per: rolling 24h}}
      - {{usd: {tokens * 3e-6:.6f}, per: month}}
    when_store_is_gone: {tenant}
"""
        for tenant, key in KEYS.items()
    )
    folder.mkdir()
    (folder / "policy.yaml").write_text(
        f"""
backends:
  cheap: {{type: openai, base_url: '{backend_url}', region: eu}}
  dear: {{type: openai, base_url: '{backend_url}', region: eu}}
models:
  large: [{{backend: cheap, model: cheap-m, price: {{input: 1, output: 2}}, max_output_tokens: 200}}]
  dear: [{{backend: dear, model: m, price: {{input: 2, output: 4}}, max_output_tokens: 200}}]
routes:
  - {{name: chat, mode: cloud_only, models: [large], fallback: [dear]}}
tenants:{tenants}
"""
    )


class Gateway:
    """One `firstdraft serve`, started again whenever it was killed; its state folder stays."""

    def __init__(self, folder: Path, policies: Path, redis_url: str) -> None:
        self.url = ""
        self.starts = 0
        self._clock = folder / "clock"
        self._log = folder / "log"
        folder.mkdir()
        self._set_clock(0)
        self._command = [
            *(sys.executable, "-m", "gateway.cli.main", "serve", "--no-edge", "--port", "0"),
            *("--policies", str(policies), "--state", str(folder / "state"), "--redis-url", redis_url),
            *("--lease-s", str(LEASE_S), "--drain-s", "3", "--log-format", "json"),
        ]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTDRAFT_")}
        if CLOCKS_STEP:
            environ |= {
                "LD_PRELOAD": str(LIBFAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        environ["PYTHONFAULTHANDLER"] = "1"
        self.starts += 1
        self.url = ""
        size = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stderr=log, stdout=asyncio.subprocess.DEVNULL, env=environ
            )
        ends = time.monotonic() + 180  # the machine may be busy
        while not self.url:
            await asyncio.sleep(0.05)
            found = re.search(rb'"url": ?"(http[^"]+)"', self._log.read_bytes()[size:])
            self.url = found[1].decode() if found else ""
            if not self.running:
                raise RuntimeError(f"the gateway ended:\n{self._log.read_text()[-3000:]}")
            if time.monotonic() > ends:
                self.signal(signal.SIGABRT)  # Python then says where it stands
                await self._process.wait()
                raise RuntimeError(f"the gateway did not start:\n{self._log.read_text()[-3000:]}")

    async def kill(self) -> None:
        if self.running:
            self._process.kill()
            await self._process.wait()

    def signal(self, number: int) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def end(self) -> None:
        """As an operator ends it: running requests first."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self.running:
            try:
                await asyncio.wait_for(self._process.wait(), 20)
            except TimeoutError:
                await self.kill()

    def _set_clock(self, offset_s: int) -> None:
        self._clock.write_text(f"{offset_s:+d}")

    def step_clock(self, offset_s: int) -> None:
        """From now on its clock is so many seconds off; within a second it notices."""
        self._set_clock(offset_s)

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""
