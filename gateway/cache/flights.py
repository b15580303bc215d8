"""Single flight: identical requests that are in flight at the same time share one attempt, here and between replicas.

Nobody is special. Whoever comes first starts a flight, a task of its own, and reads along like everybody else; when its
client leaves, the flight goes on as long as anybody reads, here or elsewhere, and ends when nobody does.

Between replicas, the store holds a lease on fetching each answer. Its holder renews it, and as soon as another replica
says that it wants to read along, writes down what it has. The other replicas poll that, and give it to their own
readers. A holder that dies loses its lease; the first to notice takes over (see `flight.Continuation`). Without the
store each replica flies alone.

    lease ──mine──▶ fetch, publish, put into the cache, release
       └──another's──▶ read along ──its end──▶ done
                            └──it is lost──▶ look up: an answer, the lease, or again another's
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import zlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

import msgspec
import structlog

from gateway.cache.flight import Continuation, Flight
from gateway.cache.prompts import LEASE_MS, Found, PromptCache, lease_of
from gateway.errors import FirstdraftError, RequestError, StoreUnavailable
from gateway.inference.events import Emit, Event
from gateway.store.script import Script
from gateway.tasks import error_of

Stored = asyncio.Future[None] | None
Fly = Callable[[Emit], Awaitable[Stored]]
"""Fetches the answer, and puts it into the cache; what it returns is done when the store has it."""

_POLL_S = 0.02
_RENEW_S = 0.25
"""How often a fetcher shows that it lives, and asks whether anybody wants to read along."""
_WISH_MS = 2_000
_BATCHES_LIVE_MS = 30_000
_MOST_PUBLISHED = 4
"""Times the largest answer that is kept: what is larger is not published to its end."""
_END_S = 1.0
_EVENTS, _DONE, _FAILED = b"e", b"d", b"f"


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """What one request wants of a flight."""

    key: str
    stream: bool
    fly: Fly
    accepts: Callable[[Found], bool]
    """Whether an answer of that age will do."""
    joining: Callable[[], AbstractAsyncContextManager[Callable[[Event], None]]]
    """Surrounds reading along with another request's flight; what it gives is shown each event before the reader."""

    def flown_by(self, fly: Fly) -> Trip:
        """The same trip, fetched by another."""
        return msgspec.structs.replace(self, fly=fly)

    @property
    def name(self) -> str:
        return lease_of(self.key, stream=self.stream)


class Flights:
    """The flights of one process; an async context manager, which cancels those that are left at its end."""

    def __init__(self, cache: PromptCache) -> None:
        self._cache = cache
        self._store = cache.store
        self._publish = Script.read("gateway.cache", "publish", "publish.lua")
        self._follow_script = Script.read("gateway.cache", "follow", "follow.lua")
        self._flights: dict[str, Flight] = {}
        self._tasks: dict[asyncio.Task[None], Flight] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        over = [task for task, flight in self._tasks.items() if flight.ended]
        if over:  # they only release their leases
            await asyncio.wait(over, timeout=_END_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def ride(self, trip: Trip, emit: Emit) -> Found | None:
        """Give the answer to `emit`, shared with all who ask for the same; or return one that was found instead.

        Raises:
            FirstdraftError: what the flight failed with. What refused the one who started it (a budget, a rate) is not
                told to others: one of them starts again.
        """
        while True:
            flight = self._flights.get(trip.name)
            begun = flight is None
            if flight is None:
                looked = await self._cache.look_up(trip.key, stream=trip.stream, token=self._token())
                if looked.found is not None and trip.accepts(looked.found):
                    return looked.found
                flight = self._flights.get(trip.name)  # another may have begun while the store was asked
                if flight is None:
                    flight = self._begin(trip, looked.fetcher)
                else:
                    begun = False
            try:
                if begun and not flight.is_anothers:
                    await self._read(trip.name, flight, emit)
                else:
                    await self._join(trip, flight, emit)
            except RequestError:
                if begun or flight.events:
                    raise
            else:
                return None

    async def _join(self, trip: Trip, flight: Flight, emit: Emit) -> None:
        async with trip.joining() as look:

            async def look_and_emit(event: Event) -> None:
                look(event)
                await emit(event)

            await self._read(trip.name, flight, look_and_emit)

    async def refresh(self, trip: Trip) -> None:
        """Fetch the answer for nobody, unless somebody does already."""
        if trip.name in self._flights:
            return
        token = self._token()
        try:
            taken = await self._store.command("SET", trip.name, token, "NX", "PX", LEASE_MS)
        except StoreUnavailable:
            return
        if taken is not None and trip.name not in self._flights:
            self._begin(trip, token).wanted = True  # nobody reads: it goes on all the same

    async def _read(self, name: str, flight: Flight, emit: Emit) -> None:
        try:
            await flight.read(emit)
        finally:
            if not flight.ended and not flight.readers and not flight.wanted:
                await self._end(name, flight)

    async def _end(self, name: str, flight: Flight) -> None:
        self._leave(name, flight)  # nobody may join it any more
        tasks = [task for task, flown in self._tasks.items() if flown is flight]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _begin(self, trip: Trip, fetcher: str) -> Flight:
        is_anothers = bool(fetcher) and not fetcher.startswith(self._cache.process)
        flight = self._flights[trip.name] = Flight(self._cache.most_bytes, is_anothers=is_anothers)
        task = asyncio.create_task(self._fly(flight, trip, fetcher), name="flight")
        self._tasks[task] = flight
        task.add_done_callback(lambda done: self._over(done, trip.name))
        return flight

    def _over(self, task: asyncio.Task[None], name: str) -> None:
        flight = self._tasks.pop(task)
        self._leave(name, flight)
        if (fault := error_of(task)) is not None:
            structlog.get_logger().error("flight_failed", exc_info=fault)

    def _leave(self, name: str, flight: Flight) -> None:
        if self._flights.get(name) is flight:
            del self._flights[name]

    def _token(self) -> str:
        return f"{self._cache.process}-{secrets.token_hex(8)}"

    # --- one flight -------------------------------------------------------------------------------------------

    async def _fly(self, flight: Flight, trip: Trip, fetcher: str) -> None:
        publishing: _Publishing | None = None
        stored: Stored = None
        try:
            token: str | None = fetcher
            if flight.is_anothers:
                token = await self._follow(flight, trip, fetcher)
            if token is not None:
                if token:
                    publishing = _Publishing(self._cache, self._publish, trip, token, flight)
                stored = await trip.fly(Continuation(flight).emit)
            flight.end()
        except Exception as error:
            flight.end(error)
            if not isinstance(error, FirstdraftError):
                raise
        except asyncio.CancelledError:
            flight.end(RequestError("the request that fetched this answer was given up"))
            raise
        finally:
            self._leave(trip.name, flight)
            if publishing is not None:
                await publishing.end(stored)

    async def _follow(self, flight: Flight, trip: Trip, fetcher: str) -> str | None:
        """Read along with another replica; None: to its end, else the token under which this one has to go on."""
        while True:
            out = Continuation(flight)
            try:
                if await self._read_along(trip, fetcher, out):
                    return None
            except StoreUnavailable:
                return ""
            looked = await self._cache.look_up(trip.key, stream=trip.stream, token=self._token())
            if looked.found is not None:
                out = Continuation(flight)
                for event in looked.found.events:
                    await out.emit(event)
                return None
            if not looked.fetcher or looked.fetcher.startswith(self._cache.process):
                return looked.fetcher
            fetcher = looked.fetcher

    async def _read_along(self, trip: Trip, fetcher: str, out: Continuation) -> bool:
        """Whether the fetcher came to its end; else it was lost, or failed. Raises StoreUnavailable."""
        names, read = _names(trip, fetcher), 0
        while True:
            lives, batches = await self._store.script(self._follow_script, names, (fetcher, read, _WISH_MS))
            for batch in batches:
                kind, data = batch[:1], batch[1:]
                if kind != _EVENTS:
                    return bool(kind == _DONE)
                for event in self._events(data, names[1]):
                    await out.emit(event)
            read += len(batches)
            if not lives and not batches:
                return False
            await asyncio.sleep(_POLL_S)

    def _events(self, data: bytes, name: str) -> list[Event]:
        try:
            return self._cache.codec.decode_events(data, name)
        except (ValueError, zlib.error) as error:
            raise StoreUnavailable(f"the store holds a batch of events that cannot be read: {error}") from None


class _Publishing:
    """Shows other replicas that this one fetches, and what it has, from its making to its `end`."""

    def __init__(self, cache: PromptCache, script: Script, trip: Trip, token: str, flight: Flight) -> None:
        self._cache = cache
        self._script = script
        self._names = _names(trip, token)
        self._token = token
        self._flight = flight
        self._sent = 0
        self._broken = False
        """What was sent last may or may not have arrived: nobody may take what there is for all of it."""
        self._over = False
        self._news = asyncio.Event()
        flight.on_more = self._on_more
        self._task = asyncio.create_task(self._run(), name="flight publisher")

    async def end(self, stored: Stored) -> None:
        """Publish the rest, and release the lease once the store has the answer, so that nobody fetches it again."""
        self._over = True
        self._news.set()
        # Not cancelled: whether what it is sending arrives would be anybody's guess.
        await asyncio.wait((self._task,))
        if stored is not None:
            await asyncio.wait((stored,))
        flight = self._flight
        try:
            if stored is None and not flight.wanted:
                await self._send()  # somebody may have come to read along what the store will not have
            await self._send(at_end=_DONE if flight.error is None else _FAILED)
        except (StoreUnavailable, ValueError) as error:
            structlog.get_logger().debug("flight_not_published", reason=str(error))

    def _on_more(self) -> None:
        if self._flight.wanted or self._flight.ended:
            self._news.set()

    async def _run(self) -> None:
        try:
            while await self._goes_on():
                if self._flight.wanted:
                    await asyncio.sleep(_POLL_S / 2)  # many reads in one batch
                self._news.clear()
                if not await self._send():
                    break
        except (StoreUnavailable, ValueError) as error:
            structlog.get_logger().debug("flight_not_published", reason=str(error))

    async def _goes_on(self) -> bool:
        """Wait until there is something to send, or to renew; False: this is the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RENEW_S):
                await self._news.wait()
        return not self._over

    async def _send(self, *, at_end: bytes = b"") -> bool:
        """Renew the lease, or release it, and write what is new if it is wanted; False: the lease is lost."""
        flight, batches = self._flight, list[bytes]()
        if self._broken or (flight.wanted and flight.bytes > _MOST_PUBLISHED * self._cache.most_bytes):
            at_end = at_end and _FAILED
        elif flight.wanted and self._sent < len(flight.events):
            events = flight.events[self._sent :]
            batches.append(_EVENTS + self._cache.codec.encode_events(events, self._names[1]))
        sent = len(flight.events)
        if at_end and flight.wanted:
            batches.append(at_end)
        release = "1" if at_end else "0"
        arguments: tuple[str | bytes | int, ...] = (self._token, LEASE_MS, _BATCHES_LIVE_MS, release, *batches)
        broken, self._broken = self._broken, True
        answer = await self._cache.store.script(self._script, self._names, arguments)
        self._broken = broken
        if batches:
            self._sent = sent
        flight.wanted = flight.wanted or answer == 2
        return bool(answer) and not at_end


def _names(trip: Trip, token: str) -> tuple[str, str, str]:
    """Lease, batches, wish: all in one Cluster slot."""
    return trip.name, f"{trip.name}:{token}", f"{trip.name}:{token}:wanted"
