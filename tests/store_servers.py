"""Valkey processes as operators run them: a server, a pair with Sentinels, a Cluster; to be killed, frozen, emptied."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from gateway.store.client import Store
from gateway.store.embedded import find_binary

SLOTS = 16_384
SERVICE = "budgets"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


class Server:
    """One `valkey-server` with a folder of its own; it keeps no data on disk unless `durable`."""

    def __init__(self, folder: Path, port: int, *flags: str, durable: bool = False, sentinel: bool = False) -> None:
        self.folder = folder
        self.port = port
        self._flags = flags
        self._durable = durable
        self._sentinel = sentinel
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, *flags: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "server.conf"
        if not config.exists():
            config.write_text("")
        words = [str(find_binary()), str(config), *(["--sentinel"] if self._sentinel else [])]
        words += ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), "--daemonize", "no"]
        if not self._sentinel:
            words += ["--save", "", "--appendonly", "yes" if self._durable else "no"]
        self._process = await asyncio.create_subprocess_exec(
            *words,
            *self._flags,
            *flags,
            stdout=(self.folder / "log").open("ab"),
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        await self.until_it_answers()

    async def until_it_answers(self, limit_s: float = 60.0) -> None:
        async with asyncio.timeout(limit_s):
            while not (await self._answer_to("PING")).startswith(("+PONG", "-NOAUTH")):
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        if self.running:
            self._process.kill()
            await self._process.wait()

    def signal(self, number: int) -> None:
        if self.running:
            os.kill(self._process.pid, number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    async def restart(self, *, empty: bool) -> None:
        """Kill and start again; `empty`: its data is gone, its configuration is not."""
        await self.kill()
        if empty:
            shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        await self.start()

    async def ask(self, *words: str) -> str:
        """What the server says, as it says it (RESP), of a short answer."""
        return await self._answer_to(*words)

    async def _answer_to(self, *words: str) -> str:
        packed = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        try:
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                with contextlib.closing(writer):
                    writer.write(packed.encode())
                    return (await reader.read(65536)).decode(errors="replace")
        except (OSError, TimeoutError):
            return ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go_on()
        await self.kill()


class SentinelPair:
    """A master, its replica (or more), and three Sentinels that fail over within about a second and a half."""

    def __init__(self, folder: Path, *flags: str, replicas: int = 1) -> None:
        ports = free_ports(4 + replicas)
        self.servers = [Server(folder / f"server-{port}", port, *flags) for port in ports[3:]]
        self.sentinels = [Server(folder / f"sentinel-{port}", port, sentinel=True) for port in ports[:3]]
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    async def __aenter__(self) -> Self:
        master, *replicas = self.servers
        await self._stack.enter_async_context(master)
        for replica in replicas:
            self._stack.push_async_exit(replica)
            await replica.start("--replicaof", f"127.0.0.1 {master.port}")
        for sentinel in self.sentinels:
            sentinel.folder.mkdir(parents=True)
            (sentinel.folder / "server.conf").write_text(
                f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} 500\n"
                f"sentinel failover-timeout {SERVICE} 2000\n"
            )
            await self._stack.enter_async_context(sentinel)
        await until(self._complete, 60)
        return self

    async def __aexit__(self, *_: object) -> None:
        for sentinel in self.sentinels:
            await sentinel.kill()
        await self._stack.aclose()

    async def master(self) -> Server:
        """Whom the Sentinels name."""
        said = await self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if f"\r\n{server.port}\r\n" in said)

    async def _complete(self) -> bool:
        for replica in self.servers[1:]:
            if "master_link_status:up" not in await replica.ask("INFO", "replication"):
                return False
        said = [await sentinel.ask("SENTINEL", "MASTER", SERVICE) for sentinel in self.sentinels]
        words = [answer.split("\r\n") for answer in said]
        return all(
            "num-slaves" in row
            and row[row.index("num-slaves") + 2] == str(len(self.servers) - 1)
            and row[row.index("num-other-sentinels") + 2] == "2"
            for row in words
        )


class Cluster:
    """Three masters, each with a replica that takes over within about a second and a half."""

    def __init__(self, folder: Path, *flags: str) -> None:
        ports = free_ports(12)
        self._buses = dict(zip(ports[:6], ports[6:], strict=True))
        self.servers = [
            Server(
                folder / f"node-{port}",
                port,
                *("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "800"),
                *("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"),
                *flags,
            )
            for port, bus in self._buses.items()
        ]
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.servers[0].port},127.0.0.1:{self.servers[1].port}"

    async def __aenter__(self) -> Self:
        for server in self.servers:
            await self._stack.enter_async_context(server)
        masters, replicas = self.servers[:3], self.servers[3:]
        for index, master in enumerate(masters):
            first, last = SLOTS * index // 3, SLOTS * (index + 1) // 3 - 1
            await master.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            await master.ask("CLUSTER", "SET-CONFIG-EPOCH", str(index + 1))
        for other in self.servers[1:]:
            bus = str(self._buses[other.port])
            await self.servers[0].ask("CLUSTER", "MEET", "127.0.0.1", str(other.port), bus)
        ids = {server.port: (await server.ask("CLUSTER", "MYID")).split("\r\n")[1] for server in self.servers}
        for master, replica in zip(masters, replicas, strict=True):

            async def follows(replica=replica, master=master) -> bool:
                return (await replica.ask("CLUSTER", "REPLICATE", ids[master.port])).startswith("+OK")

            await until(follows, 60)
        await until(self._complete, 60)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def master_of(self, key: str) -> Server:
        """The node that serves a key now."""
        async with Store(self.url, timeout_s=2.0) as store:
            link = store._servers.link(key)
            line = await link.open()
            port = line._transport.get_extra_info("peername")[1]
        return next(server for server in self.servers if server.port == port)

    async def _complete(self) -> bool:
        for server in self.servers:
            if "cluster_state:ok" not in await server.ask("CLUSTER", "INFO"):
                return False
        for replica in self.servers[3:]:
            if "master_link_status:up" not in await replica.ask("INFO", "replication"):
                return False
        return True


async def until(condition, limit_s: float) -> None:
    """Wait for something that happens by itself."""
    async with asyncio.timeout(limit_s):
        while not await condition():
            await asyncio.sleep(0.02)
