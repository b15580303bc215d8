"""The gateway's way to the edge: one EdgeClient per worker process, over the edge's Unix socket.

States. The client connects by itself, and again whenever the connection ends:

    off --enter--> starting --connected--> what the edge says (starting, warm, failed) --connection ends--> restarting
                                                    ^-------------------------------connected-----------------'

Every answer in flight fails with EdgeCrashed as soon as the connection ends. Nothing here waits for the edge but
`generate` for its next token and `stats` for its figures.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from gateway.edge import protocol
from gateway.edge.link import Link
from gateway.edge.protocol import Priority, State
from gateway.errors import EdgeCrashed, EdgeError, EdgeOverloaded, EdgeUnavailable, EdgeUnsuitable
from gateway.inference.events import TokenLogprob
from gateway.inference.request import Message, Sampling

EdgeStats = protocol.Stats

_FIRST_RETRY_S = 0.02
_LONGEST_RETRY_S = 0.25
_STATS_S = 2.0


class EdgeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the edge is to answer.

    `tenant` is who fairness counts for. `isolated`: this tenant shares no prompt prefix with others. `ttft_within_s`:
    refuse (EdgeOverloaded) when the first token is predicted later than that. `json_schema`: the answer is valid under
    it unless its length cuts it (see `json_grammar`). Temperature None or 0 is greedy.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    sampling: Sampling = Sampling()
    tenant: str = ""
    priority: Priority = "interactive"
    isolated: bool = False
    ttft_within_s: float | None = None
    json_schema: str = ""


class EdgeToken(msgspec.Struct, frozen=True):
    """What came with one frame. `text` may be empty while it is held back; the figures are one for each token.

    `told` is for the client that asked for it: of the tokens that `text` is made of.
    """

    text: str
    logprobs: tuple[float, ...] = ()
    entropies: tuple[float, ...] = ()
    margins: tuple[float, ...] = ()
    told: tuple[TokenLogprob, ...] = ()


class EdgeDone(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is complete. `cached_tokens` of the prompt were not decoded again. Times in seconds."""

    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float


class EdgeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The edge as last heard of. `reason` says why it is not warm; `n_ctx` and `memory_bytes` are 0 until it is.

    `fingerprint` stands for the content and the format of the model that is loaded; empty until it is.
    """

    state: State
    reason: str = ""
    model: str = ""
    pid: int | None = None
    n_ctx: int = 0
    fingerprint: str = ""
    memory_bytes: int = 0


class _Stream:
    """One answer on its way: what came and was not yet taken. Bounded by the answer's own length."""

    def __init__(self) -> None:
        self._frames: deque[protocol.FromEdge | EdgeError] = deque()
        self._arrived = asyncio.Event()

    def put(self, frame: protocol.FromEdge | EdgeError) -> None:
        self._frames.append(frame)
        self._arrived.set()

    async def take(self) -> protocol.FromEdge:
        while not self._frames:
            self._arrived.clear()
            await self._arrived.wait()
        frame = self._frames.popleft()
        if isinstance(frame, EdgeError):
            raise frame
        return frame


class EdgeClient:
    """Talks to the edge. An async context manager; entering neither waits for the edge nor fails without it."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._status = EdgeStatus(state="off", reason="the edge is not in use")
        self._changed = asyncio.Event()
        self._load = protocol.Load()
        self._link: Link | None = None
        self._streams: dict[int, _Stream] = {}
        self._number = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._become(EdgeStatus(state="starting", reason="the edge does not listen yet"))
        self._task = asyncio.create_task(self._stay_connected(), name="edge client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._become(EdgeStatus(state="off", reason="the gateway stops"))

    @property
    def status(self) -> EdgeStatus:
        """The edge as last heard of; no I/O."""
        return self._status

    async def until_warm(self) -> None:
        """Returns when the edge is warm. Raises EdgeUnavailable when it failed, and will not be without a change."""
        status = await self.until(lambda status: status.state in {"warm", "failed"})
        if status.state == "failed":
            raise EdgeUnavailable(status.reason)

    async def until(self, is_so: Callable[[EdgeStatus], bool]) -> EdgeStatus:
        """The first status, from now on, of which this is true."""
        while not is_so(self._status):
            await self._changed.wait()
        return self._status

    def _become(self, status: EdgeStatus) -> None:
        self._status = status
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def wait_s(self) -> float:
        """Seconds that a new request would wait until its prompt is read; 0 when that is not known. No I/O.

        How long the reading takes is for the edge to say, which knows what of the prompt it has: it decides by
        `EdgeRequest.ttft_within_s`.
        """
        load = self._load
        if self._status.state != "warm" or not load.prefill_rate:
            return 0.0
        return load.wait_s + load.queued_tokens / load.prefill_rate

    async def generate(self, request: EdgeRequest) -> AsyncGenerator[EdgeToken | EdgeDone, None]:
        """The answer, ending with EdgeDone. Closing or cancelling it tells the edge at once, and does not wait.

        Raises EdgeUnavailable (not warm), EdgeOverloaded (queue full, or too late), EdgeUnsuitable (too long, odd
        messages), EdgeCrashed (died in mid-answer).
        """
        number, stream = self._submit(request)
        ended = False
        try:
            while not ended:
                try:
                    frame = await stream.take()
                except EdgeError:
                    ended = True
                    raise
                match frame:
                    case protocol.Token():
                        yield EdgeToken(frame.text, frame.logprobs, frame.entropies, frame.margins, frame.told)
                    case protocol.Done():
                        ended = True
                        yield _done(frame)
        finally:
            self._streams.pop(number, None)
            if not ended and self._link is not None:
                self._link.send(protocol.Cancel(number))

    async def stats(self) -> EdgeStats:
        """The edge's figures, between two steps. Raises EdgeUnavailable without connection, or after 2 s."""
        link = self._connected()
        number, stream = self._open()
        try:
            link.send(protocol.StatsAsked(number))
            async with asyncio.timeout(_STATS_S):
                frame = await stream.take()
        except TimeoutError as error:
            raise EdgeUnavailable(f"the edge did not give its figures within {_STATS_S:g} s") from error
        finally:
            self._streams.pop(number, None)
        if not isinstance(frame, protocol.Stats):
            raise EdgeUnavailable("the edge gave no figures")
        return frame

    # --- requests -----------------------------------------------------------------------------------------------

    def _submit(self, request: EdgeRequest) -> tuple[int, _Stream]:
        if self._status.state != "warm":
            raise EdgeUnavailable(f"the edge is {self._status.state}: {self._status.reason}")
        link = self._connected()
        number, stream = self._open()
        submit = protocol.Submit(
            id=number,
            messages=request.messages,
            max_tokens=request.max_tokens,
            sampling=request.sampling,
            tenant=request.tenant,
            priority=request.priority,
            isolated=request.isolated,
            ttft_within_s=request.ttft_within_s,
            json_schema=request.json_schema,
        )
        try:
            link.send(submit)
        except protocol.BadFrame as error:
            del self._streams[number]
            raise EdgeUnsuitable(f"the request cannot be sent to the edge: {error}") from error
        return number, stream

    def _open(self) -> tuple[int, _Stream]:
        self._number += 1
        stream = self._streams[self._number] = _Stream()
        return self._number, stream

    def _connected(self) -> Link:
        if self._link is None:
            raise EdgeUnavailable(f"the edge is {self._status.state}: {self._status.reason}")
        return self._link

    # --- the connection -----------------------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        delay_s = _FIRST_RETRY_S
        while True:
            try:
                _, link = await loop.create_unix_connection(self._make_link, str(self._socket_path))
            except OSError:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_RETRY_S)
                continue
            delay_s = _FIRST_RETRY_S
            try:
                self._link = link
                link.send(protocol.Hello(protocol.VERSION))
                await link.closed.wait()
            finally:
                link.close()
            await asyncio.sleep(delay_s)

    def _make_link(self) -> Link:
        return Link(self._received, self._lost)

    def _received(self, frame: protocol.FromEdge) -> None:
        match frame:
            case protocol.Status():
                self._become(
                    EdgeStatus(
                        state=frame.state,
                        reason=frame.reason,
                        model=frame.model,
                        pid=frame.pid,
                        n_ctx=frame.n_ctx,
                        fingerprint=frame.fingerprint,
                        memory_bytes=frame.memory_bytes,
                    )
                )
            case protocol.Load():
                self._load = frame
            case protocol.Failed(id=0):
                self._become(EdgeStatus(state="failed", reason=frame.message))
            case protocol.Failed():
                self._hand(frame.id, _error(frame))
            case protocol.Token() | protocol.Done() | protocol.Stats() | protocol.Pong():
                self._hand(frame.id, frame)

    def _hand(self, number: int, frame: protocol.FromEdge | EdgeError) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.put(frame)

    def _lost(self) -> None:
        self._link = None
        self._load = protocol.Load()
        if self._status.state != "off":
            self._become(EdgeStatus(state="restarting", reason="the edge process ended", model=self._status.model))
        for stream in self._streams.values():
            stream.put(EdgeCrashed("the edge process ended while it was answering"))


def _done(frame: protocol.Done) -> EdgeDone:
    return EdgeDone(
        finish_reason=frame.finish_reason,
        prompt_tokens=frame.prompt_tokens,
        cached_tokens=frame.cached_tokens,
        completion_tokens=frame.completion_tokens,
        queue_s=frame.queue_s,
        prefill_s=frame.prefill_s,
        decode_s=frame.decode_s,
    )


def _error(frame: protocol.Failed) -> EdgeError:
    for kind in (EdgeUnsuitable, EdgeOverloaded, EdgeUnavailable):
        if kind.code == frame.code:
            return kind(frame.message)
    return EdgeCrashed(frame.message)
