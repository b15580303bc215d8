"""The edge is killed at each kind of message: no answer is lost or doubled, no request is stuck."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.edge import protocol
from gateway.edge.client import EdgeClient, EdgeDone, EdgeRequest, EdgeToken
from gateway.errors import EdgeCrashed, EdgeError, EdgeUnavailable
from gateway.inference.request import Message
from tests.attack.edge_soak import soak
from tests.edge_fixture import start_edge, stop_edge

pytestmark = [pytest.mark.edge, pytest.mark.slow]

Moment = tuple[type, int]
"""A kind of message, and the how manieth of it: there the edge dies, before its reader has seen it."""
MOMENTS: list[Moment] = [
    *((kind, 1) for kind in (protocol.Submit, protocol.Cancel, protocol.StatsAsked)),
    *((protocol.Token, nth) for nth in (1, 7)),
    *((kind, 1) for kind in (protocol.Done, protocol.Failed, protocol.Stats, protocol.Load)),
    *((kind, 1) for kind in (protocol.Hello, protocol.Status)),
]
"""All of a worker's; Ping and Pong are the supervisor's, which starts the edge again whatever becomes of them."""


class Relay:
    """Stands between worker and edge and reads along; at its moment it kills the edge in the middle of the message."""

    def __init__(self, path: Path, edge: Path, kill: Callable[[], None]) -> None:
        self._path, self._edge, self._kill = path, edge, kill
        self.moment: Moment | None = None
        self.seen: Counter[type] = Counter()
        self._open: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Relay]:
        server = await asyncio.start_unix_server(self._relay, self._path)
        async with server:
            yield self

    def cut(self) -> None:
        """Ends all connections; the edge lives."""
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, protocol.BadFrame):
            to_edge, from_edge = await asyncio.open_unix_connection(self._edge)
            self._open.append(from_edge)
            with contextlib.suppress(asyncio.CancelledError):
                ways = (
                    self._pass(reader, from_edge, protocol.FrameReader.at_edge()),
                    self._pass(to_edge, writer, protocol.FrameReader.at_worker()),
                )
                tasks = [asyncio.ensure_future(way) for way in ways]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
            from_edge.transport.abort()
        writer.transport.abort()

    async def _pass(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, frames: protocol.FrameReader
    ) -> None:
        writing = protocol.FrameWriter()
        while data := await source.read(65_536):
            for frame in frames.feed(data):
                self.seen[type(frame)] += 1
                raw = writing.encode(frame)
                if self.moment == (type(frame), self.seen[type(frame)]):
                    self.moment = None
                    self._kill()
                    target.write(raw[: len(raw) // 2])  # half of it still gets through
                    await target.drain()
                    return
                target.write(raw)
            await target.drain()


def ask(text: str, max_tokens: int) -> EdgeRequest:
    return EdgeRequest(messages=(Message("user", text),), max_tokens=max_tokens)


async def outcome(client: EdgeClient, request: EdgeRequest) -> str:
    """How one request ends: exactly once, whole or with a named error."""
    ends = tokens = 0
    try:
        async with asyncio.timeout(30):
            async for event in client.generate(request):
                assert ends == 0
                if isinstance(event, EdgeDone):
                    ends += 1
                    assert tokens == event.completion_tokens
                elif isinstance(event, EdgeToken):
                    tokens += len(event.logprobs)
    except (EdgeCrashed, EdgeUnavailable) as error:
        assert ends == 0
        return error.code or ""
    assert ends == 1
    return "whole"


async def cancelled(client: EdgeClient) -> str:
    """A request whose client leaves after its first token, if it comes to that."""
    stream = client.generate(ask("Tell a long story.", 400))
    try:
        async with asyncio.timeout(30):
            await anext(stream)
        await stream.aclose()
    except (EdgeCrashed, EdgeUnavailable) as error:
        return error.code or ""
    return "left"


@pytest.mark.timeout(300)
async def test_killed_at_every_kind_of_message(tmp_path, edge_socket):
    """Each request ends once, whole or named; the edge that comes after has nothing left of them, and answers."""
    (tmp_path / "models").symlink_to(edge_socket.parent / "models")
    process, path = start_edge(tmp_path, n_ctx=512)
    relay = Relay(tmp_path / "relay.sock", path, lambda: process.kill())  # noqa: PLW0108 - whichever process runs then
    try:
        async with relay.listening(), EdgeClient(tmp_path / "relay.sock") as client, asyncio.timeout(240):
            await client.until_warm()
            for moment in MOMENTS:
                relay.seen.clear()
                relay.moment = moment
                if moment[0] in {protocol.Hello, protocol.Status}:
                    relay.cut()  # they come with the next connection
                found = await asyncio.gather(
                    *(outcome(client, ask(f"Count to {n}.", 4 + 4 * n)) for n in range(3)),
                    *(cancelled(client), refused(client), stats(client)),
                )
                assert set(found) <= {"whole", "left", "unsuitable", "stats", "edge_crashed", "edge_unavailable"}
                await asyncio.to_thread(process.wait)
                await client.until(lambda status: status.state != "warm")
                process, _ = start_edge(tmp_path, n_ctx=512)
                await client.until_warm()
                assert await outcome(client, ask("Hello.", 3)) == "whole"
                left = await client.stats()
                assert (left.active, left.waiting, left.requests) == (0, 0, 1)
                assert not client._streams
    finally:
        stop_edge(process)


async def refused(client: EdgeClient) -> str:
    """A request that the edge refuses: `Failed` comes for it."""
    try:
        async for _ in client.generate(EdgeRequest(messages=(Message("wizard", "x"),), max_tokens=1)):
            raise AssertionError("a wizard was answered")
    except (EdgeCrashed, EdgeUnavailable) as error:
        return error.code or ""
    except EdgeError:
        return "unsuitable"
    raise AssertionError("a wizard was answered with nothing")


async def stats(client: EdgeClient) -> str:
    """Its figures, or a named error."""
    try:
        await client.stats()
    except (EdgeCrashed, EdgeUnavailable) as error:
        return error.code or ""
    return "stats"


async def test_random_load_with_kills_ends_in_named_errors_alone(edge_socket):
    """A short soak of the whole gateway: clients that leave, an edge that dies; nothing unnamed, nothing stuck."""
    soaked = await soak(12, kill_every_s=5, share_models=edge_socket.parent / "models")
    assert soaked.kills + soaked.hangs >= 1
    assert soaked.outcomes["whole"]
    assert soaked.unnamed == set()
    assert soaked.left_active == 0
