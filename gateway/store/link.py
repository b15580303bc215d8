"""The way to one server: its line, and a circuit for the time in which there is none.

       closed ──time limit passed, or connection lost──> open ──the probe got a line──> closed

While the circuit is open calls fail immediately, and one probe asks the server again and again. A frozen server costs
one time limit to those who met it first, and nothing to others. A connection that ends while nobody waits for an answer
(a server may close idle ones) opens no circuit: the next call makes a new one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import hiredis
import structlog

from gateway.errors import StoreUnavailable
from gateway.store.address import Login, Place
from gateway.store.line import Answer, Line, pack

_PROBE_FIRST_S = 0.02
_PROBE_LAST_S = 0.5
_YOUNG_S = 10.0
_RUN_BYTES = 16
"""Of the 40 hex digits that Redis calls its run id: enough to tell one process from another."""

Find = Callable[[], Awaitable[Place]]
"""Where the server is now; raises StoreUnavailable or OSError."""


class Link:
    """One server, reached over one line at a time.

    Args:
        find: asked before each connection.
        timeout_s: the most that a new connection takes, with finding out where.
        answer_s: the most that an answer takes.
        shown: how messages call it, without passwords.
        master: whether a server that is a replica is the wrong one.
        on_line: called with each new line.
    """

    def __init__(
        self,
        find: Find,
        login: Login,
        tls: ssl.SSLContext | None,
        *,
        timeout_s: float,
        answer_s: float,
        shown: str,
        master: bool = False,
        on_line: Callable[[Line], None] | None = None,
    ) -> None:
        self.line: Line | None = None
        """None while there is none; `open` makes one."""
        self.trouble: str | None = None
        self._find = find
        self._login = login
        self._tls = tls
        self._timeout_s = timeout_s
        self._answer_s = answer_s
        self._shown = shown
        self._master = master
        self._on_line = on_line
        self._opening: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> Line:
        """The line; waits for a new one where there is none, at most the time limit. Raises StoreUnavailable."""
        if self.line is None and self.trouble is not None:
            raise StoreUnavailable(self.trouble)
        return await self._line()

    async def place(self) -> Place:
        """Where the server is now. Raises StoreUnavailable or OSError."""
        return await self._find()

    async def check(self) -> None:
        """Ask for a sign of life, whatever the circuit says. Raises StoreUnavailable."""
        answer = await (await self._line()).ask(pack("PING"))
        if isinstance(answer, hiredis.ReplyError):
            raise StoreUnavailable(f"the store at {self._shown} refused: {answer}")

    async def close(self) -> None:
        """End the line, and whatever is under way to a new one."""
        self._closed = True
        tasks = [task for task in (self._probe, self._opening) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self.line is not None:
            self.line.close()
            self.line = None

    def broken(self, reason: str) -> None:
        """Open the circuit: the server cannot serve anybody now."""
        if self._closed:
            return
        says_where = reason.startswith("the store at ")
        self.trouble = reason if says_where else f"the store at {self._shown} cannot be used: {reason}"
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._ask_until_it_answers(), name="store probe")

    def _lost(self, line: Line, reason: str) -> None:
        if line is self.line:
            self.line = None
            if line.busy:
                self.broken(reason)

    async def _line(self) -> Line:
        line = self.line
        if line is None:
            await self._connect()
            line = self.line
        if line is None:
            raise StoreUnavailable(self.trouble or f"the store at {self._shown} cannot be used")
        return line

    async def _connect(self) -> None:
        """Make a line, or say why not in `trouble`. Callers may leave: the attempt goes on for the others."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._try(), name="store connection")
        await asyncio.shield(self._opening)

    async def _try(self) -> None:
        line: Line | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                place = await self._find()
                line = await connect(place, self._tls, self._answer_s, self._lost, self._shown)
                await greet(line, self._login, master=self._master)
        except TimeoutError:
            self._give_up(line, f"it did not answer within {self._timeout_s:g} s")
        except StoreUnavailable as error:
            self._give_up(line, error.message)
        except OSError as error:
            self._give_up(line, str(error))
        except BaseException:
            if line is not None:
                line.close()
            raise
        else:
            line.young_until += asyncio.get_running_loop().time()
            self.line, self.trouble = line, None
            if self._on_line is not None:
                self._on_line(line)

    def _give_up(self, line: Line | None, reason: str) -> None:
        if line is not None:
            line.close()
        self.broken(reason)

    async def _ask_until_it_answers(self) -> None:
        pause_s = _PROBE_FIRST_S
        structlog.get_logger().warning("store_lost", reason=self.trouble)
        while self.trouble is not None:
            await self._connect()
            if self.trouble is not None:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PROBE_LAST_S)
        structlog.get_logger().info("store_back", where=self._shown)


async def connect(
    place: Place, tls: ssl.SSLContext | None, timeout_s: float, on_lost: Callable[[Line, str], None], shown: str
) -> Line:
    """A line to a server that has not been greeted yet. Raises OSError."""
    loop = asyncio.get_running_loop()

    def make() -> Line:
        return Line(timeout_s, on_lost, shown)

    if place.path:
        _, line = await loop.create_unix_connection(make, place.path)
    else:
        _, line = await loop.create_connection(make, place.host, place.port, ssl=tls)
    return line


async def greet(line: Line, login: Login, *, master: bool = False) -> None:
    """Say who we are, and learn who answers. Raises StoreUnavailable: it does not want us, or is a replica."""
    words: list[tuple[str, ...]] = []
    if login.password:
        words.append(("AUTH", login.username or "default", login.password))
    if login.database:
        words.append(("SELECT", str(login.database)))
    words += [("ROLE",)] if master else []
    words.append(("INFO", "server"))
    answers = await line.ask_all(b"".join(pack(*command) for command in words), len(words))
    for command, answer in zip(words, answers, strict=True):
        if isinstance(answer, hiredis.ReplyError) and command[0] != "INFO":
            raise StoreUnavailable(f"it refused {command[0]}: {answer}")
        if command[0] == "ROLE" and answer[0] != b"master":
            raise StoreUnavailable("it is a replica: a failover is going on")
    _note_server(line, answers[-1])


def _note_server(line: Line, info: Answer) -> None:
    """From `INFO server`: which process it is, and whether it has just started. A proxy may not tell."""
    if isinstance(info, hiredis.ReplyError) and str(info).startswith(("LOADING", "MASTERDOWN")):
        raise StoreUnavailable(str(info))
    text = info if isinstance(info, bytes) else b""
    fields = dict(row.split(b":", 1) for row in text.split(b"\r\n") if b":" in row)
    line.run = fields.get(b"run_id", b"unknown")[:_RUN_BYTES]
    uptime = fields.get(b"uptime_in_seconds", b"")
    line.young_until = _YOUNG_S - int(uptime) if uptime.isdigit() else 0.0
