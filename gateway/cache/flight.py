"""One answer on its way to all who asked for it: everybody reads along from the beginning, each at its own pace.

    flying ──the last event──▶ ended        a reader that comes later gets all of it at once, and then the end
       └──an error──▶ ended with it         a reader gets what came before, and then the error

The source is held back by its fastest reader, so that one reader that stalls disturbs nobody; once the answer is larger
than one that can be kept, by its slowest, so that memory stays bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.errors import BackendCut
from gateway.inference.events import (
    Delta,
    DraftCompleted,
    DraftJudged,
    DraftText,
    Emit,
    Event,
    Finished,
    Idle,
    ReasoningDelta,
    RefusalDelta,
    Relayed,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    WholeAnswer,
)

_WINDOW_BYTES = 262_144
"""How far the source may be ahead."""


class Flight:
    """An answer that is being fetched, here or (`is_anothers`) by another replica.

    `most_bytes` is the size up to which a slow reader does not hold the others.
    """

    def __init__(self, most_bytes: int, *, is_anothers: bool = False) -> None:
        self.is_anothers = is_anothers
        self.events: list[Event] = []
        self.ended = False
        self.wanted = False
        """Another replica reads along."""
        self.on_more: Callable[[], None] = _nothing
        """Called after each event, and at the end."""
        self.error: Exception | None = None
        self._most_bytes = most_bytes
        self._sizes: list[int] = [0]
        """Bytes of the events before each position."""
        self._positions: dict[object, int] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._held: set[asyncio.Future[None]] = set()

    @property
    def readers(self) -> int:
        """How many read along in this process."""
        return len(self._positions)

    @property
    def bytes(self) -> int:
        """Of all events so far, about."""
        return self._sizes[-1]

    async def emit(self, event: Event) -> None:
        """The next event; returns when the readers have room for more."""
        self.events.append(event)
        self._sizes.append(self._sizes[-1] + _size(event))
        self._tell()
        while self._is_ahead():
            await _wait_in(self._held)

    def end(self, error: Exception | None = None) -> None:
        """No more events; `error` is raised in every reader once it has read the others. The first call counts."""
        if not self.ended:
            self.ended, self.error = True, error
            self._tell()

    async def read(self, emit: Emit) -> None:
        """Give all events to `emit`, from the first one on. Raises the flight's error."""
        me = object()
        self._positions[me] = position = 0
        try:
            while True:
                while position < len(self.events):
                    await emit(self.events[position])
                    self._positions[me] = position = position + 1
                    _wake(self._held)
                if self.ended:
                    break
                await _wait_in(self._waiting)
        finally:
            del self._positions[me]
            _wake(self._held)
        if self.error is not None:
            raise self.error

    def _is_ahead(self) -> bool:
        if not self._positions:
            return False
        of_whom = max if self.bytes <= self._most_bytes else min
        return self.bytes - self._sizes[of_whom(self._positions.values())] > _WINDOW_BYTES

    def _tell(self) -> None:
        _wake(self._waiting)
        self.on_more()


class Continuation:
    """Goes on with a flight whose source is lost, from another source that begins anew.

    What was shown cannot be taken back. So what the new source gives is held back until it has said the same, word for
    word; from there on it continues. Where it says something else, or where what was shown is more than text, the
    flight ends with `BackendCut`: never a sentence that is half of one answer and half of another. A flight that has
    shown nothing yet simply begins.

    Temperature 0, the usual case in a cache, makes answers repeat themselves most of the time, not always.
    """

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._left = "".join(event.text for event in flight.events if isinstance(event, Relayed | TextDelta))
        self._is_text = all(map(_is_text, flight.events))
        self._joined = not any(isinstance(event, Relayed | Delta) for event in flight.events)

    async def emit(self, event: Event) -> None:
        """Take the new source's next event."""
        if self._joined or isinstance(event, WholeAnswer):
            await self._flight.emit(event)
            return
        if isinstance(event, DraftText | DraftCompleted | DraftJudged | Idle):
            return
        if not self._is_text or not _is_text(event) or not isinstance(event, Relayed | TextDelta):
            raise _lost()
        text, left = event.text, self._left
        if not left.startswith(text[: len(left)]):
            raise _lost()
        self._left = left[len(text) :]
        reason = event.finish_reason if isinstance(event, Relayed) else None
        if self._left and reason is None:
            return
        if self._left:
            raise _lost()
        self._joined = True
        # A piece of the gateway's own making, even an empty one, has the encoder keep the first source's id.
        await self._flight.emit(TextDelta(text[len(left) :]))
        if reason is not None:
            await self._flight.emit(Finished(reason))


def _is_text(event: Event) -> bool:
    """Nothing in it but the text of choice 0, or nothing at all."""
    if isinstance(event, Relayed):
        return event.content_bytes == len(event.text.encode("utf-8", "surrogatepass"))
    return not isinstance(event, ReasoningDelta | RefusalDelta | ToolCallDelta)


def _lost() -> BackendCut:
    return BackendCut("the replica that fetched this answer was lost, and another one cannot continue it")


def _size(event: Event) -> int:
    match event:
        case Relayed() | UsageReported():
            return len(event.data) + 64
        case WholeAnswer():
            return len(event.body) + 64
        case TextDelta() | ReasoningDelta() | RefusalDelta() | DraftText() | DraftCompleted() | DraftJudged():
            return len(event.text) + 64
        case ToolCallDelta():
            return len(event.arguments) + len(event.name) + 64
        case _:
            return 64


async def _wait_in(waiting: set[asyncio.Future[None]]) -> None:
    """Wait for `_wake`. A future for each: cancelling one must not touch the others."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting.add(future)
    try:
        await future
    finally:
        waiting.discard(future)


def _wake(waiting: set[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)


def _nothing() -> None:
    return
