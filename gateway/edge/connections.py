"""The socket side of the edge process: workers connect, submit, and read their tokens.

Runs in the main thread's event loop; the decode loop has its own thread and is only left notes. Prompts are prepared
in a third thread, one at a time.

A worker that does not read what it asked for is cut off when `_MOST_UNSENT_BYTES` wait for it, and with it go its
requests: nobody else waits for it, and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

from gateway.edge.engine import Engine, Output
from gateway.edge.job import Prompt
from gateway.edge.log import write_log
from gateway.edge.preparation import Preparation
from gateway.edge.protocol import (
    VERSION,
    BadFrame,
    Cancel,
    Done,
    Failed,
    FrameReader,
    FrameWriter,
    FromEdge,
    Hello,
    Load,
    Ping,
    Pong,
    Stats,
    StatsAsked,
    Status,
    Submit,
    ToEdge,
)
from gateway.errors import EdgeError, EdgeOverloaded, EdgeUnavailable

_MOST_UNSENT_BYTES = 1024 * 1024
_MOST_OPEN = 256
"""Requests of one worker, running, waiting and being prepared. More than any batch and queue take."""
_LOAD_INTERVAL_S = 0.1


class Connections:
    """All workers, and what is to be told to each. `attach` gives it the engine once the model is loaded."""

    def __init__(self, status: Status, rss_bytes: Callable[[], int]) -> None:
        self.status = status
        self.rss_bytes = rss_bytes
        self.engine: Engine | None = None
        self.preparation: Preparation | None = None
        self.tokenizer = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self.writer = FrameWriter()
        self.load = Load()
        self._told = Load()
        self._told_s = 0.0
        self._members: set[Connection] = set()

    def make(self) -> Connection:
        """A new connection: what asyncio calls for each that comes."""
        return Connection(self)

    def attach(self, engine: Engine, preparation: Preparation, status: Status) -> None:
        """The model is warm."""
        self.engine = engine
        self.preparation = preparation
        self.load = Load(prefill_rate=engine.prefill_rate)
        self._tell_load()
        self.change(status)

    def change(self, status: Status) -> None:
        """Tells every worker."""
        self.status = status
        for connection in list(self._members):
            connection.send(status)

    def deliver(self, outputs: list[tuple[object, Output]], load: Load) -> None:
        """What one step brought, each connection's frames in one write."""
        unsent: dict[Connection, list[bytes]] = {}
        for owner, output in outputs:
            connection = cast("Connection", owner)
            if isinstance(output, Stats):
                output = _with_memory(output, self.rss_bytes())  # noqa: PLW2901 - the same frame, completed
            if connection.expects(output):
                unsent.setdefault(connection, []).append(self.writer.encode(output))
        for connection, frames in unsent.items():
            connection.write(b"".join(frames))
        self.load = load
        self._tell_load()

    def _tell_load(self) -> None:
        now = time.monotonic()
        idle = self.load.queued_tokens == 0
        if self.load == self._told or (now - self._told_s < _LOAD_INTERVAL_S and not idle):
            return
        self._told, self._told_s = self.load, now
        for connection in list(self._members):
            connection.send(self.load)

    def joined(self, connection: Connection) -> None:
        """It said hello. The load comes first: who hears "warm" can predict."""
        self._members.add(connection)
        connection.send(self.load)
        connection.send(self.status)

    def left(self, connection: Connection) -> None:
        """It is gone, and all that it asked for."""
        self._members.discard(connection)
        if self.engine is not None:
            self.engine.cancel_all(connection)

    def close(self) -> None:
        """Cuts all connections."""
        for connection in list(self._members):
            connection.cut("the edge stops")
        self.tokenizer.shutdown(wait=False, cancel_futures=True)


class Connection(asyncio.Protocol):
    """One worker."""

    def __init__(self, connections: Connections) -> None:
        self._all = connections
        self._reader = FrameReader.at_edge()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._greeted = False
        self._open: set[int] = set()
        """Requests that were submitted and have no last frame yet."""

    # --- asyncio's side -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._read(frame)
        except BadFrame as error:
            self.cut(str(error))

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._open.clear()
        self._all.left(self)

    # --- out ----------------------------------------------------------------------------------------------------

    def expects(self, output: Output) -> bool:
        """False for what was cancelled or is over; a last frame ends its request."""
        if isinstance(output, Stats):
            return True
        if output.id not in self._open:
            return False
        if isinstance(output, (Done, Failed)):
            self._open.discard(output.id)
        return True

    def send(self, frame: FromEdge) -> None:
        """One frame."""
        self.write(self._all.writer.encode(frame))

    def write(self, data: bytes) -> None:
        """Frames. A worker that does not read is cut off."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > _MOST_UNSENT_BYTES:
            self.cut(f"it left {_MOST_UNSENT_BYTES} bytes unread")

    def cut(self, why: str) -> None:
        """Ends the connection at once."""
        write_log("warning", "edge connection cut", why=why)
        if self._transport is not None:
            self._transport.abort()

    # --- in -----------------------------------------------------------------------------------------------------

    def _read(self, frame: ToEdge) -> None:
        if not self._greeted:
            self._greet(frame)
            return
        match frame:
            case Submit():
                self._submit(frame)
            case Cancel(number):
                self._open.discard(number)
                if self._all.engine is not None:
                    self._all.engine.cancel(self, number)
            case StatsAsked(number):
                self._ask_stats(number)
            case Ping(number):
                self.send(Pong(number, self._all.engine.step_age_s() if self._all.engine else 0.0))
            case Hello():
                raise BadFrame("a second hello")

    def _greet(self, frame: ToEdge) -> None:
        if not isinstance(frame, Hello):
            raise BadFrame("the first frame is no hello")
        if frame.version != VERSION:
            self.send(Failed(0, EdgeUnavailable.code or "", f"the edge speaks version {VERSION}, not {frame.version}"))
            raise BadFrame(f"version {frame.version}")
        self._greeted = True
        self._all.joined(self)

    def _ask_stats(self, number: int) -> None:
        if self._all.engine is None:
            self.send(_with_memory(Stats(id=number), self._all.rss_bytes()))
        else:
            self._all.engine.ask_stats(self, number)

    def _submit(self, request: Submit) -> None:
        if request.id in self._open or request.id < 1:
            raise BadFrame(f"request number {request.id} is not free")
        self._open.add(request.id)
        if len(self._open) > _MOST_OPEN:
            self._fail(request.id, EdgeOverloaded(f"one worker has {_MOST_OPEN} requests at the edge already"))
            return
        preparation = self._all.preparation
        if preparation is None:
            self._fail(request.id, EdgeUnavailable(f"the edge is {self._all.status.state}: {self._all.status.reason}"))
            return
        arrived_s = time.monotonic()
        prompt = self._all.tokenizer.submit(self._prompt, preparation, request)
        prompt.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._prepared, request, done, arrived_s))

    def _prompt(self, preparation: Preparation, request: Submit) -> Prompt:
        """In the preparing thread. Nothing is done for a request that is not wanted any more."""
        return preparation.prompt(request) if request.id in self._open else Prompt([])

    def _prepared(self, request: Submit, prompt: Future[Prompt], arrived_s: float) -> None:
        engine, preparation = self._all.engine, self._all.preparation
        if request.id not in self._open or engine is None or preparation is None or prompt.cancelled():
            return
        try:
            made = prompt.result()
        except EdgeError as error:
            self._fail(request.id, error)
            return
        except Exception as error:  # noqa: BLE001 - the request must be answered, whatever the template did
            write_log("error", "edge preparation failed", reason=repr(error))
            self._fail(request.id, EdgeError("the edge could not prepare this prompt; its log says why"))
            return
        engine.submit(self, request, made, preparation.most_tokens(request, len(made.tokens)), arrived_s)

    def _fail(self, number: int, error: EdgeError) -> None:
        self._open.discard(number)
        self.send(Failed(number, error.code or "", error.message))


def _with_memory(stats: Stats, rss_bytes: int) -> Stats:
    fields: dict[str, Any] = {name: getattr(stats, name) for name in stats.__struct_fields__}
    return Stats(**(fields | {"rss_bytes": rss_bytes}))
