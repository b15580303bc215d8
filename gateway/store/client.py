"""The gateway's side of Redis or Valkey.

Three rules that the rest of the gateway relies on:

- **Once.** A command or script is sent once. Whoever repeats has to know that it is safe (a script that knows its
  call's id). Only what the server says it did not run is sent again: an unknown script, a slot that moved.
- **In time.** Each operation has one hard limit, for a connection and for the answer.
- **Then at once.** After a failure the circuit of that server is open: calls fail immediately, until a probe gets
  through again (`link`).

All commands of this process travel on one connection for each server (`line`): nothing here may block it. A command
that waits in the server belongs into `waiting`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, NamedTuple, Self

import hiredis
import structlog

from gateway.errors import StoreRefused, StoreUnavailable
from gateway.store.address import read_address
from gateway.store.line import Answer, Argument, Line, pack
from gateway.store.link import Link, connect, greet
from gateway.store.script import Script
from gateway.store.servers import servers

PREFIX = "fd1:"
"""Of every key. The number changes with the shape of the data."""

_LOST = frozenset({"READONLY", "LOADING", "MASTERDOWN", "UNBLOCKED"})
"""The server cannot serve anybody now: it is a replica (a failover is going on), or still reads its data."""
_PASSING = frozenset({"NOREPLICAS", "OOM", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MISCONF"})
"""The server will not now, and may soon: other commands may be served meanwhile."""
_NO_KEY = frozenset({"PING", "INFO", "CONFIG", "FLUSHALL", "SCRIPT", "ACL", "TIME", "DBSIZE", "CLUSTER", "CLIENT"})
_WAITING_LINES = 64


class ScriptCall(NamedTuple):
    """One run of a script. All `keys` share a hash tag."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]


class Store:
    """One Redis or Valkey, the one behind Sentinels, or a Cluster; an async context manager.

    Entering does not need the server to be there: operations raise StoreUnavailable until it is.

    Args:
        url: see `address`.
        timeout_s: the most that one operation takes, for a connection and for the answer each.

    Raises:
        SettingsError: the URL is not one.
    """

    def __init__(self, url: str, *, timeout_s: float = 0.25) -> None:
        self._address = read_address(url)
        self._timeout_s = timeout_s
        self._servers = servers(self._address, timeout_s, self._note_line)
        self._waiting = asyncio.Semaphore(_WAITING_LINES)
        self.new_line = asyncio.Event()
        """Set with each new connection: the server may be another one, or know less than before."""

    async def __aenter__(self) -> Self:
        try:
            await self.ping()
        except StoreUnavailable as error:
            structlog.get_logger().warning("store_unavailable", reason=error.message)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._servers.close()

    @property
    def healthy(self) -> bool:
        """What the last operations or probes found, of all servers; no I/O."""
        for link in self._servers.links():  # noqa: SIM110 asked for each hold: a generator costs three times as much
            if link.trouble is not None:
                return False
        return True

    @property
    def is_local(self) -> bool:
        """It is reached over a Unix socket: the embedded one, whose data outlives it."""
        return bool(self._address.places[0].path)

    def age(self, key: str) -> Literal["", "young", "local"]:
        """Whether the server that has this key has just started: what it does not have, it may have lost.

        A local one, on a Unix socket, keeps its data, and no other machine knows more of it.
        """
        if self.is_local:
            return "local"
        line = self._servers.link(key).line
        return "young" if line is not None and line.young_until > asyncio.get_running_loop().time() else ""

    async def ping(self) -> None:
        """Ask all servers for an answer, whatever their circuits say. Raises StoreUnavailable."""
        await self._servers.find()
        for link in self._servers.links():
            await link.check()

    async def command(self, *words: Argument) -> Answer:
        """Send one command, once. Its first key is its second word. Raises StoreUnavailable, also when refused."""
        key = None if str(words[0]).upper() in _NO_KEY or len(words) == 1 else words[1]
        return await self._ask(pack(*words), key if not isinstance(key, int) else str(key))

    async def get(self, key: str) -> bytes | None:
        """The value, None when there is none. Raises StoreUnavailable."""
        value = await self._ask(pack("GET", key), key)
        return value if isinstance(value, bytes) else None

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Keep a value for `ttl_s` seconds, at least a millisecond. Raises StoreUnavailable."""
        await self._ask(pack("SET", key, value, "PX", max(1, int(ttl_s * 1000))), key)

    async def get_or_create(self, name: str, value: bytes) -> bytes:
        """The value that all replicas share under `name`: the one there is, else this one. Raises StoreUnavailable."""
        key = PREFIX + name
        await self.command("SET", key, value, "NX")
        return await self.get(key) or value

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Answer:
        """Run a script, once, and give what it returned. Raises StoreUnavailable; it may have run all the same."""
        link = await self._link(keys[0])
        line = link.line or await link.open()
        answer = await line.ask(script.packed(keys, args, line.run))
        if not isinstance(answer, hiredis.ReplyError):
            return answer
        if _is_unknown(answer):  # it did not run: the server is new, or was restarted
            answer = await line.ask(script.packed(keys, args, line.run, by_text=True))
        return await self._understood(answer, line, link, script.words(keys, args, line.run))

    async def scripts(self, calls: Sequence[ScriptCall]) -> list[Answer | StoreUnavailable]:
        """Run many scripts in one round trip for each server, each once and on its own: they are no transaction.

        What one of them returned stands in its place; where it failed, or may have, a StoreUnavailable does.

        Raises:
            StoreUnavailable: all of them failed so, on one connection; any of them may have run.
        """
        by_link: dict[Link, list[int]] = {}
        for index, call in enumerate(calls):
            by_link.setdefault(await self._link(call.keys[0]), []).append(index)
        if len(by_link) == 1:
            return await self._run_all(next(iter(by_link)), calls)
        answers: list[Answer | StoreUnavailable] = [None] * len(calls)
        done = await asyncio.gather(
            *(self._run_all(link, [calls[index] for index in places]) for link, places in by_link.items()),
            return_exceptions=True,
        )
        for places, outcome in zip(by_link.values(), done, strict=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, StoreUnavailable):
                raise outcome
            for position, index in enumerate(places):
                answers[index] = outcome if isinstance(outcome, BaseException) else outcome[position]
        return answers

    async def waiting(self, *words: Argument, wait_s: float) -> Answer:
        """Send a command that waits in the server (`XREAD BLOCK …`) on a connection of its own, once.

        `wait_s` is how long it may take there; at most 64 are under way, others wait for their turn.
        Raises StoreUnavailable. For a stream's command the key stands after `STREAMS`.
        """
        shouted = [str(word).upper() for word in words]
        key = words[shouted.index("STREAMS") + 1] if "STREAMS" in shouted else words[1]
        link = await self._link(str(key))
        if link.trouble is not None:
            raise StoreUnavailable(link.trouble)
        async with self._waiting:
            line: Line | None = None
            try:
                async with asyncio.timeout(wait_s + self._timeout_s):
                    place = await link.place()
                    limit_s = wait_s + self._timeout_s
                    line = await connect(place, self._address.tls, limit_s, _nothing, self._address.shown)
                    await greet(line, self._address.login)
                    return await self._understood(await line.ask(pack(*words)), line, link, None)
            except (TimeoutError, OSError) as error:
                raise StoreUnavailable(f"the store did not answer in {wait_s:g} s: {error}") from None
            finally:
                if line is not None:
                    line.close()

    # --- one command ------------------------------------------------------------------------------------------

    async def _ask(self, packed: bytes, key: str | bytes | None) -> Answer:
        link = await self._link(key)
        line = link.line or await link.open()
        answer = await line.ask(packed)
        if isinstance(answer, hiredis.ReplyError):
            return await self._understood(answer, line, link, packed)
        return answer

    async def _link(self, key: str | bytes | None) -> Link:
        try:
            return self._servers.link(key)
        except StoreUnavailable:
            await self._servers.find()
            return self._servers.link(key)

    async def _run_all(self, link: Link, calls: Sequence[ScriptCall]) -> list[Answer | StoreUnavailable]:
        line = link.line or await link.open()
        packed = b"".join(call.script.packed(call.keys, call.args, line.run) for call in calls)
        answers: list[Answer] = await line.ask_all(packed, len(calls))
        missing = [index for index, answer in enumerate(answers) if _is_unknown(answer)]
        if missing:
            again = [calls[index] for index in missing]
            packed = b"".join(call.script.packed(call.keys, call.args, line.run, by_text=True) for call in again)
            for index, answer in zip(missing, await line.ask_all(packed, len(missing)), strict=True):
                answers[index] = answer
        for index, answer in enumerate(answers):
            if isinstance(answer, hiredis.ReplyError):
                call = calls[index]
                words = call.script.words(call.keys, call.args, line.run)
                try:
                    answers[index] = await self._understood(answer, line, link, words)
                except StoreUnavailable as error:
                    answers[index] = error
        return answers

    async def _understood(self, answer: Answer, line: Line, link: Link, again: bytes | None) -> Answer:
        """The answer; an error raises. `again` is what to send once more where a Cluster says that it has moved."""
        if not isinstance(answer, hiredis.ReplyError):
            return answer
        said = str(answer)
        code = said.partition(" ")[0]
        if code in _LOST:
            link.broken(said)
            line.lose(said)
            raise StoreUnavailable(f"the store at {self._address.shown} cannot be used: {said}")
        if said.startswith(("MOVED ", "ASK ")) and again is not None:
            other = await self._servers.moved(said)
            if other is not None:
                target = other.line or await other.open()
                if said.startswith("ASK "):
                    answers = await target.ask_all(pack("ASKING") + again, 2)
                    return await self._understood(answers[1], target, other, None)
                return await self._understood(await target.ask(again), target, other, None)
        if code in _PASSING:
            raise StoreUnavailable(f"the store at {self._address.shown} refused: {said}")
        raise StoreRefused(f"the store at {self._address.shown} refused: {said}")

    def _note_line(self, _line: Line) -> None:
        self.new_line.set()


def _is_unknown(answer: Answer) -> bool:
    """The server does not know this script's hash."""
    return isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT")


def _nothing(_line: Line, _reason: str) -> None:
    """Who waits sees the error itself."""
