"""The gateway's side of Redis or Valkey.

Three rules that the rest of the gateway relies on:

- **Once.** A command or script is sent once. redis-py repeats by default, also writes whose answer was lost; here it
  never does. Whoever repeats has to know that it is safe (a script that knows its call's id).
- **In time.** Each operation has one hard limit, from waiting for a connection to the last byte of the answer.
- **Then at once.** After a failure the circuit is open: calls fail immediately, while one probe asks the server again
  and again; its first answer closes the circuit. A frozen server costs one time limit to those who met it first, and
  nothing to others.

       closed ──time limit passed, or connection lost──> open ──the probe got PONG──> closed
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import structlog
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.errors import SettingsError, StoreUnavailable
from gateway.store.script import Script

PREFIX = "fd1:"
"""Of every key. The number changes with the shape of the data."""

_CONNECTIONS = 32
_PROBE_FIRST_S = 0.02
_PROBE_LAST_S = 0.5

Argument = str | bytes | int
Answer = Any
"""What the server said: int, bytes, None, or a list of them."""
T = TypeVar("T")

_LOST = (RedisConnectionError, ReadOnlyError)
"""The server cannot serve anybody now; read-only: a failover is going on."""


class ScriptCall(NamedTuple):
    """One run of a script. All `keys` share a hash tag."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]


class Store:
    """One Redis or Valkey, reached over a bounded pool of connections; an async context manager.

    Entering does not need the server to be there: operations raise StoreUnavailable until it is.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with user, password and database where they are needed.
        timeout_s: the most that one operation takes.

    Raises:
        SettingsError: the URL is not one.
    """

    def __init__(self, url: str, *, timeout_s: float = 0.25) -> None:
        self._timeout_s = timeout_s
        self._where, pool = _pool(url)
        self._redis = Redis(connection_pool=pool)
        self._redis.response_callbacks.clear()  # answers as the server gave them, in every version of the library
        self._execute: Callable[..., Awaitable[Answer]] = self._redis.execute_command
        self._pool = pool
        # The pool of redis-py raises when it is used up; waiting here can be cancelled without losing a connection.
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        self._trouble: str | None = None
        self._probe: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.ping()
        except StoreUnavailable as error:
            structlog.get_logger().warning("store_unavailable", reason=error.message)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait((self._probe,))
        await self._pool.disconnect()

    @property
    def healthy(self) -> bool:
        """What the last operation or probe found; no I/O."""
        return self._trouble is None

    async def ping(self) -> None:
        """Ask for an answer, whatever the circuit says. Raises StoreUnavailable."""
        await self._limited(lambda: self._execute("PING"))
        self._trouble = None

    async def command(self, *words: Argument) -> Answer:
        """Send one command, once. Raises StoreUnavailable, also when the server refuses it."""
        return await self._guarded(lambda: self._execute(*words))

    async def get(self, key: str) -> bytes | None:
        """The value, None when there is none. Raises StoreUnavailable."""
        value = await self.command("GET", key)
        return value if isinstance(value, bytes) else None

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Keep a value for `ttl_s` seconds, at least a millisecond. Raises StoreUnavailable."""
        await self.command("SET", key, value, "PX", max(1, int(ttl_s * 1000)))

    async def get_or_create(self, name: str, value: bytes) -> bytes:
        """The value that all replicas share under `name`: the one there is, else this one. Raises StoreUnavailable."""
        key = PREFIX + name
        await self.command("SET", key, value, "NX")
        return await self.get(key) or value

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Answer:
        """Run a script, once, and give what it returned. Raises StoreUnavailable; it may have run all the same."""
        return await self._guarded(lambda: self._evaluate(script, keys, args))

    async def scripts(self, calls: Sequence[ScriptCall]) -> list[Answer | StoreUnavailable]:
        """Run many scripts in one round trip, each once and on its own: they are no transaction.

        What one of them returned stands in its place; where the server refused it, a StoreUnavailable does.

        Raises:
            StoreUnavailable: the connection failed; any of them may have run.
        """
        return await self._guarded(lambda: self._evaluate_all(calls))

    async def _evaluate(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Answer:
        try:
            return await self._execute("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:  # it did not run: the server is new, or was restarted
            return await self._execute("EVAL", script.text, len(keys), *keys, *args)

    async def _evaluate_all(self, calls: Sequence[ScriptCall]) -> list[Answer | StoreUnavailable]:
        answers = await self._pipeline([_by_sha(call) for call in calls])
        missing = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        again = await self._pipeline([_by_text(calls[index]) for index in missing]) if missing else []
        for index, answer in zip(missing, again, strict=True):
            answers[index] = answer
        for answer in answers:
            if isinstance(answer, _LOST):
                raise answer
        return [self._refused(answer) if isinstance(answer, RedisError) else answer for answer in answers]

    async def _pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Answer]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(await pipeline.execute(raise_on_error=False))

    async def _guarded(self, operation: Callable[[], Awaitable[T]]) -> T:
        if self._trouble is not None:
            raise StoreUnavailable(self._trouble)
        return await self._limited(operation)

    async def _limited(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run an operation within the time limit; every error of the library becomes ours here and nowhere else."""
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                return await operation()
        except (TimeoutError, RedisTimeoutError):
            raise self._broken(f"the store at {self._where} did not answer within {self._timeout_s:g} s") from None
        except (*_LOST, OSError) as error:
            raise self._broken(f"the store at {self._where} cannot be used: {error}") from error
        except RedisError as error:
            raise self._refused(error) from error

    def _refused(self, error: RedisError) -> StoreUnavailable:
        return StoreUnavailable(f"the store at {self._where} refused: {error}")

    def _broken(self, reason: str) -> StoreUnavailable:
        self._trouble = reason
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._ask_until_it_answers(), name="store probe")
        return StoreUnavailable(reason)

    async def _ask_until_it_answers(self) -> None:
        pause_s = _PROBE_FIRST_S
        structlog.get_logger().warning("store_lost", reason=self._trouble)
        while self._trouble is not None:
            try:
                await self.ping()
            except StoreUnavailable:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PROBE_LAST_S)
        structlog.get_logger().info("store_back", where=self._where)


def _by_sha(call: ScriptCall) -> tuple[Argument, ...]:
    return ("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.args)


def _by_text(call: ScriptCall) -> tuple[Argument, ...]:
    return ("EVAL", call.script.text, len(call.keys), *call.keys, *call.args)


def _pool(url: str) -> tuple[str, ConnectionPool]:
    """The pool for a URL, and the URL without its password, for messages."""
    try:
        parts = urlsplit(url)
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        pool = ConnectionPool.from_url(url)
    except ValueError as error:
        raise SettingsError(f"--redis-url (FIRSTDRAFT_REDIS_URL): {error}") from None
    pool.connection_kwargs.update(
        retry=Retry(NoBackoff(), 0),  # the default of ten runs a write twice when its answer is lost
        retry_on_error=[],
        protocol=2,  # one round trip less at connect, and no push messages between answers
        decode_responses=False,
        encoding_errors="surrogatepass",  # names come from clients, also as text that is no Unicode
        socket_timeout=None,  # one limit around the whole operation instead, see `_limited`
        socket_connect_timeout=None,
    )
    pool.max_connections = _CONNECTIONS
    return where, pool
