"""The store's client and the embedded server, with a real Valkey."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from gateway.errors import SettingsError, StoreRefused, StoreUnavailable
from gateway.store.client import ScriptCall, Store
from gateway.store.embedded import EmbeddedValkey
from gateway.store.script import Script

pytestmark = pytest.mark.store

COUNT = Script("count", "return redis.call('INCR', KEYS[1])")
BOOKED = "fd1:{t}:booked"


async def until(condition, limit_s=5.0):
    """Wait for something that happens by itself."""
    async with asyncio.timeout(limit_s):
        while not await condition():
            await asyncio.sleep(0.01)


async def answers(store: Store) -> bool:
    try:
        await store.command("PING")
    except StoreUnavailable:
        return False
    return True


class CuttingProxy:
    """A Unix socket before the server that swallows the answer to each script and cuts the connection."""

    def __init__(self, target: Path, path: Path) -> None:
        self.target, self.path, self.cut = target, path, 0

    async def __aenter__(self):
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        to_server, from_server = None, None
        try:
            to_server, from_server = await asyncio.open_unix_connection(str(self.target))
            while data := await reader.read(65536):
                from_server.write(data)
                answer = await to_server.read(65536)
                if b"EVAL" in data:
                    self.cut += 1
                    break
                writer.write(answer)
        finally:
            writer.close()
            if from_server is not None:
                from_server.close()


async def test_values_come_back_and_expire(store):
    """What is set is got, byte for byte, until its time is over."""
    await store.set("fd1:a", b"\x00\xff", ttl_s=0.05)
    assert await store.get("fd1:a") == b"\x00\xff"
    await asyncio.sleep(0.08)
    assert await store.get("fd1:a") is None


async def test_script_that_the_server_does_not_know(store):
    """A script is loaded when the server does not know it, alone and in a batch, and runs once."""
    assert await store.script(COUNT, [BOOKED], []) == 1
    await store.command("SCRIPT", "FLUSH")
    assert await store.script(COUNT, [BOOKED], []) == 2
    await store.command("SCRIPT", "FLUSH")
    assert await store.scripts([ScriptCall(COUNT, [BOOKED], [])] * 3) == [3, 4, 5]


async def test_connection_cut_after_a_script_ran(store, valkey_url, tmp_path):
    """A script whose answer is lost has run once: nothing repeats it behind our back."""
    await store.script(COUNT, [BOOKED], [])  # loaded: one EVALSHA is enough
    async with (
        CuttingProxy(Path(valkey_url.removeprefix("unix://")), tmp_path / "p") as proxy,
        Store(f"unix://{proxy.path}", timeout_s=2.0) as through,
    ):
        with pytest.raises(StoreUnavailable):
            await through.script(COUNT, [BOOKED], [])
        await until(lambda: answers(through))
        with pytest.raises(StoreUnavailable):
            await through.scripts([ScriptCall(COUNT, [BOOKED], [])] * 2)
        assert proxy.cut == 2
    assert await store.get(BOOKED) == b"4"  # 1 before, 1 alone, 2 in the batch


async def test_group_that_is_there_already_is_refused_for_good(store):
    """A server's word that only begins like one for a passing trouble (BUSYGROUP, BUSY) is a refusal, not that."""
    await store.command("XGROUP", "CREATE", "fd1:{g}:queue", "gateways", "0", "MKSTREAM")
    with pytest.raises(StoreRefused, match="BUSYGROUP"):
        await store.command("XGROUP", "CREATE", "fd1:{g}:queue", "gateways", "0", "MKSTREAM")
    assert store.healthy


async def test_refused_command_does_not_open_the_circuit(store):
    """A command that the server refuses is StoreUnavailable, and the next one is served."""
    await store.set("fd1:text", b"x", ttl_s=5)
    with pytest.raises(StoreUnavailable, match="refused"):
        await store.command("INCR", "fd1:text")
    assert store.healthy
    assert await store.get("fd1:text") == b"x"


async def test_more_callers_than_connections(store):
    """Callers beyond the pool wait for their turn."""
    values = await asyncio.gather(*(store.script(COUNT, [BOOKED], []) for _ in range(500)))
    assert sorted(values) == list(range(1, 501))


async def test_callers_that_are_cancelled(store):
    """Callers that leave in the middle take no connection with them."""
    for _ in range(20):
        callers = [asyncio.create_task(store.script(COUNT, [BOOKED], [])) for _ in range(64)]
        await asyncio.sleep(0.001)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
    assert await store.script(COUNT, ["fd1:{t}:other"], []) == 1
    [link] = store._servers.links()
    assert not link.line.busy


async def test_shared_secret_is_made_once(store, valkey_url):
    """The first replica's value is everybody's."""
    async with Store(valkey_url, timeout_s=2.0) as other:
        assert await store.get_or_create("secret", b"mine") == b"mine"
        assert await other.get_or_create("secret", b"yours") == b"mine"


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://host:port"])
async def test_url_that_is_none(url):
    """A URL that redis cannot be reached by is a setting that is wrong."""
    with pytest.raises(SettingsError, match="--redis-url"):
        Store(url)


async def test_nobody_there(tmp_path):
    """A store that is not there does not stop the gateway from starting; the password is in no message."""
    async with Store("redis://user:hidden@127.0.0.1:1/0") as absent:
        assert not absent.healthy
        with pytest.raises(StoreUnavailable) as caught:
            await absent.get("fd1:a")
    assert "127.0.0.1:1" in caught.value.message
    assert "hidden" not in caught.value.message


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def test_server_over_tcp_with_a_password(tmp_path):
    """User, password and database of the URL are used; a wrong password is no answer, and stands in no message."""
    port = free_port()
    async with EmbeddedValkey(tmp_path) as server, Store(server.url, timeout_s=2.0) as direct:
        await direct.command("CONFIG", "SET", "bind", "127.0.0.1")
        await direct.command("CONFIG", "SET", "port", port)
        await direct.command("ACL", "SETUSER", "gateway", "on", ">right-word", "~fd1:*", "+@all")
        async with Store(f"redis://gateway:right-word@127.0.0.1:{port}/3?decode_responses=true") as store:
            await store.command("SET", "fd1:a", "x")
            assert await store.get("fd1:a") == b"x"
            assert await store.script(COUNT, [BOOKED], []) == 1
        assert await direct.get("fd1:a") is None  # another database
        async with Store(f"redis://gateway:wrong-word@127.0.0.1:{port}") as refused:
            with pytest.raises(StoreUnavailable) as caught:
                await refused.ping()
        assert f"127.0.0.1:{port}" in caught.value.message
        assert "wrong-word" not in caught.value.message


async def test_frozen_server(tmp_path):
    """A server that hangs costs one time limit, then calls fail at once, until it answers again."""
    async with EmbeddedValkey(tmp_path) as server, Store(server.url, timeout_s=0.2) as store:
        os.kill(server.pid, signal.SIGSTOP)
        started = time.perf_counter()
        with pytest.raises(StoreUnavailable):
            await store.get("fd1:a")
        assert time.perf_counter() - started < 1.0
        started = time.perf_counter()
        for _ in range(100):
            with pytest.raises(StoreUnavailable):
                await store.get("fd1:a")
        assert time.perf_counter() - started < 1.0
        assert not store.healthy
        os.kill(server.pid, signal.SIGCONT)
        await until(lambda: answers(store))
        assert store.healthy


async def test_server_that_is_killed(tmp_path):
    """A killed server is started again with its data, and clients find it by themselves."""
    async with EmbeddedValkey(tmp_path) as server, Store(server.url, timeout_s=2.0) as store:
        await store.command("SET", "fd1:a", "kept")
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: answers(store))
        assert await store.get("fd1:a") == b"kept"
        assert server.restarts == 1


async def test_server_that_ends_with_the_gateway(tmp_path):
    """Leaving ends the server and keeps its data; a frozen server is no exception."""
    async with EmbeddedValkey(tmp_path) as server, Store(server.url, timeout_s=2.0) as store:
        pid = server.pid
        await store.command("SET", "fd1:a", "kept")
        os.kill(pid, signal.SIGSTOP)
    assert not is_running(pid)
    async with EmbeddedValkey(tmp_path) as server, Store(server.url, timeout_s=2.0) as store:
        assert await store.get("fd1:a") == b"kept"


async def test_two_gateways_with_one_folder(tmp_path):
    """The second one is refused, told who has the folder, and leaves the first alone."""
    async with EmbeddedValkey(tmp_path) as first, Store(first.url, timeout_s=2.0) as store:
        with pytest.raises(SettingsError) as caught:
            async with EmbeddedValkey(tmp_path):
                pass
        assert str(tmp_path / "store") in caught.value.message
        assert str(os.getpid()) in caught.value.message
        assert await answers(store)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_folder_is_private(tmp_path):
    """Nobody but the gateway's user can reach the data or the socket."""
    async with EmbeddedValkey(tmp_path) as server:
        path = Path(server.url.removeprefix("unix://"))
        assert path.parent == tmp_path / "store"
        assert mode(path.parent) == 0o700
        assert mode(path) & 0o077 == 0
        data = list(path.parent.rglob("appendonly.aof.*"))
        assert data
        assert not any(mode(file) & 0o077 for file in data)


async def test_state_folder_with_a_long_path(tmp_path, monkeypatch):
    """Where a Unix socket's path would be too long, it stands in a private folder of the system's, gone at the end."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    deep = tmp_path / ("d" * 100)
    async with EmbeddedValkey(deep) as server, Store(server.url, timeout_s=2.0) as store:
        assert await answers(store)
        folder = Path(server.url.removeprefix("unix://")).parent
        assert mode(folder) == 0o700
    assert not folder.exists()


async def test_data_that_cannot_be_read(tmp_path):
    """A server that refuses its own data stops the start, with its words."""
    async with EmbeddedValkey(tmp_path):
        pass
    manifest = next(tmp_path.rglob("*.manifest"))
    manifest.write_text("nonsense\n")
    with pytest.raises(SettingsError, match="does not start"):
        async with EmbeddedValkey(tmp_path):
            pass


GATEWAY = textwrap.dedent("""
    import asyncio, pathlib, sys
    from gateway.store.embedded import EmbeddedValkey
    async def main():
        async with EmbeddedValkey(pathlib.Path(sys.argv[1])) as server:
            print(server.pid, server.url, flush=True)
            await asyncio.sleep(60)
    asyncio.run(main())
""")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start_gateway(folder: Path) -> tuple[subprocess.Popen[str], int, str]:
    gateway = subprocess.Popen([sys.executable, "-c", GATEWAY, str(folder)], stdout=subprocess.PIPE, text=True)
    pid, url = gateway.stdout.readline().split()
    return gateway, int(pid), url


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
async def test_gateway_that_is_killed(tmp_path, frozen, monkeypatch):
    """A killed gateway leaves no server behind, not even a frozen one, and the next start works with its data."""
    monkeypatch.setattr("gateway.store.folder._LOCK_WAIT_S", 0.3)
    gateway, pid, url = start_gateway(tmp_path)
    async with Store(url, timeout_s=2.0) as store:
        await store.command("SET", "fd1:a", "kept")
    if frozen:
        os.kill(pid, signal.SIGSTOP)
    gateway.kill()
    gateway.wait()
    gateway.stdout.close()
    async with EmbeddedValkey(tmp_path) as server, Store(server.url, timeout_s=2.0) as store:
        assert not is_running(pid)
        assert await store.get("fd1:a") == b"kept"
