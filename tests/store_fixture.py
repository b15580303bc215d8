"""A real Valkey for tests: one for the whole session, emptied before each test that asks for `store`."""

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.store.client import Store
from gateway.store.embedded import EmbeddedValkey


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The URL of an embedded server that runs in a thread (and loop) of its own, whatever loop a test has."""
    started: list[str] = []
    failed: list[BaseException] = []
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        with tempfile.TemporaryDirectory(prefix="fd-") as folder:
            async with EmbeddedValkey(Path(folder)) as server:
                started.append(server.url)
                ready.set()
                await asyncio.to_thread(over.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 shown by the fixture, which waits in another thread
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="valkey for tests")
    thread.start()
    ready.wait()
    try:
        if not started:
            raise failed[0]
        yield started[0]
    finally:
        over.set()
        thread.join()


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[Store]:
    """A store without data. Its time limit is generous: a busy test machine is not what is tested."""
    async with Store(valkey_url, timeout_s=2.0) as opened:
        await opened.command("FLUSHALL")
        yield opened
