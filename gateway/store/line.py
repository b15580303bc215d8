"""One connection on which all callers' commands travel together.

What is asked in one turn of the event loop is written in one piece, and answers come back in the order of the
questions. Nothing is ever sent twice.

       open ──connection lost, an answer that is no protocol, the oldest question is over its time──> lost

When a line is lost, everybody who waits is told at once: their commands may have run, or not. There is one timer for
the whole line, for the oldest question: a timer for each would cost more than the question.

The time limit is the server's. It begins when a question is sent. A timer that rings late shows that the event loop, or
the whole machine, stood still: the answer may lie there unread, or the server stood still as well, so that the question
gets as much more time, once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis

from gateway.errors import StoreUnavailable

Answer = Any
"""What the server said: int, bytes, None, a list of them, or a `hiredis.ReplyError`."""

Argument = str | bytes | int
"""One word of a command."""

MOST_WAITING = 20_000
"""Questions without an answer; more are refused."""
_MOST_UNSENT_BYTES = 64 * 1024 * 1024
_LATE = 0.25
"""A timer that rings later than this share of the time limit was kept from it."""
_MORE = object()


class Line(asyncio.Protocol):
    """A connection; made by the event loop. `on_lost` is called once, unless it was closed from here.

    `shown` is how messages call the server.
    """

    def __init__(self, timeout_s: float, on_lost: Callable[[Line, str], None], shown: str) -> None:
        self.run = b""
        """Which process answers: changes with every start of a server, and with every failover."""
        self.young_until = 0.0
        """Until this `loop.time()` the server counts as just started."""
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._on_lost = on_lost
        self._shown = shown
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[_Question] = deque()
        self._unanswered = 0
        self._unsent: list[_Question] = []
        self._timer: asyncio.TimerHandle | None = None
        self._lost = ""

    @property
    def busy(self) -> bool:
        """Somebody waits for an answer."""
        return self._unanswered > 0

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, packed: bytes) -> asyncio.Future[Answer]:
        """Send one command; the future gets its answer, an error of the server's included.

        Raises (or the future does):
            StoreUnavailable: the line is lost, the time is over, or too many wait. Only in the last case is it sure
                that the command did not run.
        """
        return self._ask(packed, 1, None)

    def ask_all(self, packed: bytes, count: int) -> asyncio.Future[list[Answer]]:
        """As `ask`, for `count` commands, which is at least one; the future gets all answers."""
        return self._ask(packed, count, [])

    def _ask(self, packed: bytes, count: int, answers: list[Answer] | None) -> asyncio.Future[Any]:
        if self._lost:
            raise self._error()
        if self._unanswered + count > MOST_WAITING:
            raise StoreUnavailable(f"{self._unanswered:,} commands wait for the store already")
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._unsent:
            self._loop.call_soon(self._send)
        question = _Question(packed, future, count, answers)
        self._unsent.append(question)
        self._waiting.append(question)
        self._unanswered += count
        return future

    def _send(self) -> None:
        if self._transport is None or self._lost:
            return
        unsent = self._unsent
        ends = self._loop.time() + self._timeout_s
        for question in unsent:
            question.ends = ends
        self._transport.write(unsent[0].packed if len(unsent) == 1 else b"".join([one.packed for one in unsent]))
        unsent.clear()
        if self._transport.get_write_buffer_size() > _MOST_UNSENT_BYTES:
            self._lose("it takes nothing any more")
        elif self._timer is None:
            self._timer = self._loop.call_at(ends, self._check_time)

    def _check_time(self) -> None:
        """The answers to all older questions are here, for they come in order: only the first one can be late."""
        self._timer = None
        if not self._waiting or not self._waiting[0].ends:
            return  # what is sent next sets the timer
        first, now = self._waiting[0], self._loop.time()
        late_s = now - first.ends
        if late_s > _LATE * self._timeout_s and not first.spared:
            first.spared, first.ends = True, now + min(late_s, self._timeout_s)
        elif late_s >= 0:
            self._lose(f"it did not answer within {self._timeout_s:g} s")
            return
        self._timer = self._loop.call_at(first.ends, self._check_time)

    # --- being answered (asyncio.Protocol) --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 for mypy: a stream protocol is given no other
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not _MORE:
                if not waiting:
                    self._lose("it said something that nobody had asked")
                    return
                self._unanswered -= 1
                question = waiting[0]
                if question.answers is None:
                    waiting.popleft()
                    if not question.future.done():
                        question.future.set_result(answer)
                    continue
                question.answers.append(answer)
                if len(question.answers) == question.count:
                    waiting.popleft()
                    if not question.future.done():
                        question.future.set_result(question.answers)
        except hiredis.ProtocolError as error:
            self._lose(f"what it says is not Redis's protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(f"the connection was lost: {exc}" if exc else "it closed the connection")

    # --- the end ----------------------------------------------------------------------------------------------

    def lose(self, reason: str) -> None:
        """Give the line up, because what the server said shows that it cannot be used now."""
        self._lose(reason)

    def close(self) -> None:
        """End it without telling its owner; whoever waits is told."""
        self._on_lost = _nothing
        self._lose("the gateway closed the connection")

    def _error(self) -> StoreUnavailable:
        return StoreUnavailable(f"the store at {self._shown} cannot be used: {self._lost}")

    def _lose(self, reason: str) -> None:
        if self._lost:
            return
        self._lost = reason
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        waiting = list(self._waiting)
        self._waiting.clear()
        self._on_lost(self, reason)
        for question in waiting:
            if not question.future.done():
                question.future.set_exception(self._error())


def pack(*words: Argument) -> bytes:
    """A command as it is sent. Names come from clients, also as text that is no Unicode."""
    given: Any = words  # the stubs say: a tuple of one word
    try:
        packed: bytes = hiredis.pack_command(given)
    except UnicodeEncodeError:
        given = tuple(word.encode("utf-8", "surrogatepass") if isinstance(word, str) else word for word in words)
        packed = hiredis.pack_command(given)
    return packed


class _Question:
    """One or more commands whose answers somebody waits for."""

    __slots__ = ("answers", "count", "ends", "future", "packed", "spared")

    def __init__(self, packed: bytes, future: asyncio.Future[Any], count: int, answers: list[Answer] | None) -> None:
        self.packed = packed
        self.future = future
        self.count = count
        self.answers = answers
        self.ends = 0.0
        """By `loop.time()`; 0 until it is sent."""
        self.spared = False
        """It got more time already."""


def _nothing(_line: Line, _reason: str) -> None:
    """A line that its owner closed."""
