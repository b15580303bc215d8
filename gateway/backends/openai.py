"""A backend over HTTP, in OpenAI's API (vLLM, SGLang, TGI, llama-server, OpenAI and many more) or in Anthropic's.

An attempt: wait for a place, send, look at the head, then either read one body or relay reads of a stream. What is
wrong with an answer is found before any of it is passed on, as far as it can be. An attempt that ends in any other way
than with the last byte of its answer closes its connection, at once: a backend that nobody listens to has to stop.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace

import aiohttp
import msgspec

from gateway.backends.call import Call
from gateway.backends.connection import Connections, round_trip_s
from gateway.backends.content_coding import ContentDecoder, Identity, content_decoder
from gateway.backends.dialect import Dialect, Translation, dialect_of
from gateway.backends.failures import LIBRARY_ERRORS, failure
from gateway.backends.gradient import Gradient
from gateway.backends.limits import AttemptLimits
from gateway.backends.places import Load, Place, Places
from gateway.backends.refusal import passed_headers, retry_after_s
from gateway.errors import BackendBroken, BackendError, BackendRefused, BackendTimeout
from gateway.inference.deployment import Backend
from gateway.inference.events import Emit, Relayed
from gateway.inference.usage import input_tokens_estimate
from gateway.telemetry.record import AttemptRecord
from gateway.wire.hosted_models import without_developer
from gateway.wire.openai_chat import refused_by_status

_MOST_ANSWER_BYTES = 64 * 1024 * 1024
_MOST_REFUSAL_BYTES = 64 * 1024
_TOO_BUSY = frozenset({429, 503, 529})
_UNKNOWN_FIELD = frozenset({400, 422})
"""How servers refuse a field that they do not know: there is no code for it that all of them use."""
_END_WAIT_S = 0.05
"""How long the end of the response may take after `[DONE]`, before its connection is given up instead of kept."""


class OpenAIBackend:
    """One backend's client. Its connections are made at the first call and kept between calls."""

    def __init__(self, backend: Backend) -> None:
        self.active = 0
        """Calls that run now."""
        self._name = backend.name
        self._connections = Connections(backend)
        self._places: Places | None = None
        self._gradient: Gradient | None = None
        if backend.concurrency is not None:
            self._gradient = Gradient(backend.concurrency) if backend.adapts else None
            places = backend.concurrency if self._gradient is None else self._gradient.limit
            self._places = Places(places, backend.queue, backend=backend.name)
        self._retired = False
        self._takes_usage_option = backend.server.usage_option
        """False once the backend has refused `stream_options`; its streams are then counted by the gateway."""

    async def answer(self, call: Call, emit: Emit) -> None:
        """Ask, and emit the answer's events: `Relayed`… and `UsageReported` for a stream, else one `WholeAnswer`.

        To a client of another schema go the deltas that say the same.

        Raises:
            BackendBusy, BackendUnreachable, BackendTimeout, BackendBroken, BackendCut, BackendRefused: see `errors`.
            InvalidRequest: the backend's schema has no word for something that the request asks for.
        """
        dialect = dialect_of(call.deployment, call.request.surface)
        if dialect.translator is None:
            await self._answer(_Attempt(call, dialect, self._adapt), emit)
            return
        translation = Translation(emit, dialect.translator())
        await self._answer(_Attempt(call, dialect, self._adapt), translation.emit)
        await translation.end()

    async def ask(self, call: Call, dialect: Dialect, emit: Emit) -> None:
        """Ask something else than an answer to the client; as `answer`, but in `dialect`."""
        await self._answer(_Attempt(call, dialect, self._adapt), emit)

    async def _answer(self, attempt: _Attempt, emit: Emit) -> None:
        self.active += 1
        try:
            async with attempt.limits:
                if self._places is None:
                    await self._ask(attempt, emit)
                else:
                    attempt.queue()
                    async with attempt.place(self._places) as place:
                        attempt.leave_queue()
                        try:
                            await self._ask(attempt, emit)
                        finally:
                            attempt.tell_used(place)
        except (BackendRefused, BackendTimeout) as error:
            self._slow_down(error)
            raise
        finally:
            self.active -= 1
            if self._retired and not self.active:
                await self.close()

    def _adapt(self, first_token_s: float, prompt_tokens: int) -> None:
        """An answer has begun: find out whether more requests at once would do as well."""
        if self._gradient is not None and self._places is not None:
            self._gradient.add(first_token_s, prompt_tokens, self._places.load.in_flight)
            self._places.resize(self._gradient.limit)

    def _slow_down(self, error: BackendRefused | BackendTimeout) -> None:
        """Send fewer at once to a backend that says that it is too busy, or is."""
        is_late = isinstance(error, BackendTimeout) and not error.is_ours
        if self._gradient is not None and self._places is not None and (is_late or _is_too_busy(error)):
            self._gradient.refused()
            self._places.resize(self._gradient.limit)

    @property
    def load(self) -> Load | None:
        """How full it is; None where nothing limits that."""
        return None if self._places is None else self._places.load

    async def get(self, path: str) -> int:
        """The status of a GET of `path` on the backend's host. Raises BackendError."""
        try:
            return await self._connections.get(path)
        except LIBRARY_ERRORS as error:
            raise failure(error, deployment=self._name, answered=False) from error

    async def open_ahead(self, number: int) -> None:
        """Have so many connections ready. Raises BackendError."""
        try:
            await self._connections.open_ahead(number)
        except LIBRARY_ERRORS as error:
            raise failure(error, deployment=self._name, answered=False) from error

    async def _ask(self, attempt: _Attempt, emit: Emit) -> None:
        try:
            await self._ask_once(attempt, emit)
        except BackendRefused as error:
            if self._takes_usage_option and attempt.is_about_usage_option(error):
                self._takes_usage_option = False
            elif not attempt.leaves_prediction_out(error):
                raise
            await self._ask_once(attempt, emit)

    async def _ask_once(self, attempt: _Attempt, emit: Emit) -> None:
        response = await attempt.send(self._connections, ask_usage=self._takes_usage_option)
        try:
            await attempt.receive(response, emit)
        except BaseException:
            response.close()
            raise
        # Frees the connection for the next call if all of the response was read, else closes it.
        response.release()

    async def close(self) -> None:
        await self._connections.close()

    async def retire(self) -> None:
        self._retired = True
        if not self.active:
            await self.close()


def _is_too_busy(error: BackendRefused | BackendTimeout) -> bool:
    return isinstance(error, BackendRefused) and error.status in _TOO_BUSY


class _Attempt:
    """One call on its way: its limits, its timings, its response."""

    def __init__(self, call: Call, dialect: Dialect, on_first: Callable[[float, int], None]) -> None:
        """`on_first` is told how long the first content took since it was sent, and the prompt's tokens."""
        self._call = call
        self._dialect = dialect
        self._on_first = on_first
        self._id = call.deployment.id
        self._timeouts = call.deployment.backend.timeouts
        self._record: AttemptRecord = call.record
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._sent = self._began
        self.limits = AttemptLimits(self._timeouts, deadline=call.deadline, deployment=self._id)

    def queue(self) -> None:
        self.limits.begin("queue", self._timeouts.first_token_s)

    def place(self, places: Places) -> Place:
        call = self._call
        tokens = input_tokens_estimate(call.request)
        return places.take(call.tenant, weight=call.weight, input_tokens=tokens, background=call.background)

    def tell_used(self, place: Place) -> None:
        """What was used is served; an attempt that came to nothing served nothing."""
        record = self._record
        if record.input_tokens or record.output_tokens:
            place.used(input_tokens=record.input_tokens, output_tokens=record.output_tokens)
        elif record.prefill_s is None and record.status != 200:
            place.used(input_tokens=0, output_tokens=0)

    def leave_queue(self) -> None:
        now = self._loop.time()
        self._record.queue_s = now - self._began
        self._began = now

    def is_about_usage_option(self, error: BackendRefused) -> bool:
        """The backend refused the request because of an option that the gateway added to it."""
        named = error.body is not None and b"stream_options" in error.body
        return self._call.request.stream and error.status in _UNKNOWN_FIELD and named

    def leaves_prediction_out(self, error: BackendRefused) -> bool:
        """Asked without the prediction that the gateway added, the backend may do what it has just refused to do."""
        call = self._call
        if not call.request.prediction or error.status not in _UNKNOWN_FIELD:
            return False
        self._call = replace(call, request=msgspec.structs.replace(call.request, prediction="", prediction_bytes=0))
        return True

    async def send(self, connections: Connections, *, ask_usage: bool) -> aiohttp.ClientResponse:
        call = self._call
        dialect, request = self._dialect, call.request
        body = dialect.encode(request, call.deployment, max_tokens=call.max_tokens, ask_usage=ask_usage)
        if not call.deployment.backend.server.developer_role:
            body = without_developer(body)
        path = dialect.url_path(call.deployment, stream=request.stream)
        self.limits.begin("connect", self._timeouts.connect_s)
        try:
            response = await connections.post(
                body,
                path,
                traceparent=call.traceparent,
                forwarded=request.forwarded,
                on_written=self._on_written,
                at_root=dialect.at_root,
            )
        except LIBRARY_ERRORS as error:
            raise failure(error, deployment=self._id, answered=False) from error
        self._record.status = response.status
        return response

    async def receive(self, response: aiohttp.ClientResponse, emit: Emit) -> None:
        self._record.network_s = round_trip_s(response)
        if response.status >= 400:
            raise await self._refusal(response)
        stream = self._call.request.stream
        coding = self._check_head(response, self._dialect.stream_type if stream else "application/json")
        if stream:
            await self._relay(response.content, coding, emit)
        else:
            await self._read_whole(response.content, coding, emit)

    def _on_written(self) -> None:
        self._sent = self._loop.time()
        self._record.connect_s = self._sent - self._began
        if self._call.request.stream:
            self.limits.begin("first_token", self._timeouts.first_token_s)
        else:
            # The first byte of a whole answer comes when all of it has been produced.
            self.limits.pause()

    # --- the head ---------------------------------------------------------------------------------------------

    def _check_head(self, response: aiohttp.ClientResponse, expected: str) -> ContentDecoder:
        if not 200 <= response.status <= 299:
            raise self._broken(f"answered with status {response.status}, which is no answer to a chat request")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != expected and not (expected == "application/json" and kind.endswith("+json")):
            raise self._broken(f"answered with {kind[:80] or 'no content type'} instead of {expected}")
        return self._coding(response)

    def _coding(self, response: aiohttp.ClientResponse) -> ContentDecoder:
        name = response.headers.get("content-encoding", "")
        coding = content_decoder(name)
        if coding is None:
            raise self._broken(f"answered with content-encoding {name[:80]}, which was not asked for")
        return coding

    async def _refusal(self, response: aiohttp.ClientResponse) -> BackendError:
        """The error for an error status. Nothing that is wrong with its body makes it another error."""
        self.limits.begin("idle", self._timeouts.idle_s)
        try:
            body = await self._read(response.content, self._coding(response), _MOST_REFUSAL_BYTES)
        except BackendError:
            body = b""
        return refused_by_status(
            body,
            status=response.status,
            deployment=self._id,
            retry_after_s=retry_after_s(response.headers),
            passed_headers=passed_headers(response.headers),
        )

    # --- one body ---------------------------------------------------------------------------------------------

    async def _read_whole(self, content: aiohttp.StreamReader, coding: ContentDecoder, emit: Emit) -> None:
        body = await self._read(content, coding, _MOST_ANSWER_BYTES)
        answer = self._dialect.decode(body, deployment=self._id)
        self._record.whole_s = self._loop.time() - self._sent
        self._record.usage = answer.usage
        self.limits.pause()
        await emit(answer)

    async def _read(self, content: aiohttp.StreamReader, coding: ContentDecoder, most_bytes: int) -> bytes:
        body = bytearray()
        while True:
            self.limits.begin("idle", self._timeouts.idle_s)
            try:
                data = await content.readany()
                if not data:
                    return bytes(body)
                for piece in coding.pieces(data):
                    body += piece
                    if len(body) > most_bytes:
                        raise self._broken(f"answered with more than {most_bytes} bytes")
            except zlib.error as error:
                raise self._broken("answered with a body that cannot be decompressed") from error
            except LIBRARY_ERRORS as error:
                raise failure(error, deployment=self._id, answered=True) from error

    # --- a stream ---------------------------------------------------------------------------------------------

    async def _relay(self, content: aiohttp.StreamReader, coding: ContentDecoder, emit: Emit) -> None:
        decoder = self._dialect.decoder(deployment=self._id, n=self._call.request.n)
        limits, idle_s, answering = self.limits, self._timeouts.idle_s, False
        plain = isinstance(coding, Identity)
        try:
            while not decoder.ended:
                if answering:
                    limits.begin("idle", idle_s)
                data = await self._next(content)
                if not data:
                    break
                if answering:
                    limits.pause()
                for piece in (data,) if plain else self._pieces(coding, data):
                    for event in decoder.feed(piece):
                        if not answering and isinstance(event, Relayed) and event.content:
                            answering = True
                            self._first_content()
                            limits.pause()
                        await emit(event)
            limits.pause()
            for event in decoder.close():
                await emit(event)
        finally:
            if answering:
                self._record.decode_s = self._loop.time() - self._sent - (self._record.prefill_s or 0.0)
            self._record.usage = decoder.usage
        await self._read_end(content)

    async def _next(self, content: aiohttp.StreamReader) -> bytes:
        """The next read; empty at the end of the stream, or at a broken one: the decoder knows if that is too soon."""
        try:
            return await content.readany()
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
            return b""
        except LIBRARY_ERRORS as error:
            raise failure(error, deployment=self._id, answered=True) from error

    def _pieces(self, coding: ContentDecoder, data: bytes) -> Iterable[bytes]:
        try:
            yield from coding.pieces(data)
        except zlib.error as error:
            raise self._broken("streamed something that cannot be decompressed") from error

    async def _read_end(self, content: aiohttp.StreamReader) -> None:
        """Let the end of the response come in, which it mostly does with `[DONE]`: else no connection could be kept."""
        if content.at_eof():
            return
        try:
            async with asyncio.timeout(_END_WAIT_S):
                while await content.readany():
                    pass
        except LIBRARY_ERRORS:
            return

    def _first_content(self) -> None:
        self._record.prefill_s = self._loop.time() - self._sent
        self._on_first(self._record.prefill_s, input_tokens_estimate(self._call.request))

    def _broken(self, what: str) -> BackendBroken:
        return BackendBroken(f"{self._id} {what}", deployment=self._id)
