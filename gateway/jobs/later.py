"""Answers that are made at once and fetched later: `prefer: respond-async`, and responses in the background.

    begin ──admitted──▶ kept in the store ──the draft is whole, or none comes──▶ 202
      └──refused──▶ the error, and nothing is kept
    kept ──answered, or failed──▶ done        whoever waits for it is woken, on whatever gateway
      ├──its client cancels──▶ the attempt is ended and settled within milliseconds
      ├──this gateway drains too long──▶ given up: another one begins it anew, at once
      └──this gateway dies──▶ its lease ends, and another one begins it anew; at most `MOST_TRIES` times in all

The client that has its 202 may leave: nothing is cancelled by that. Before, there is nobody who could ask for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self

import structlog

from gateway.cache.entry import EntryCodec
from gateway.cache.flight import Flight
from gateway.cache.sealing import Sealer
from gateway.errors import FirstdraftError, InternalError, InvalidRequest, RateLimited, ShuttingDown, StoreUnavailable
from gateway.exchange import Exchange
from gateway.inference.events import DraftCompleted, DraftJudged, Event, Finished, Relayed, TextDelta, WholeAnswer
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.jobs.answering import Answer, Answering, failed, new_record, wanting_draft
from gateway.jobs.asked import Asked
from gateway.jobs.endpoints import ENDPOINTS
from gateway.jobs.later_records import MOST_BYTES, Claimed, Kept, LaterRecords, name_of
from gateway.jobs.news import CANCELLED, DONE, News
from gateway.modes.plan import Plan
from gateway.store.client import Store
from gateway.tasks import error_of
from gateway.telemetry.record import RequestRecord
from gateway.wire.draft_frame import draft_fields

MOST_TRIES = 3
"""An answer that so many gateways died of is not begun again."""
MOST_OF_A_TENANT = 256
"""Answers of one tenant that a worker makes at once."""
_MOST_TAKEN_OVER = 8
_ASK_AGAIN_S = 5.0
"""Should news get lost, whoever waits looks himself after so long."""
_STORE_PAUSE_S = 0.25
_GIVE_UP_S = 2.0
_WRITE_FOR_S = 600.0
_LONGEST_ANSWER = MOST_BYTES // 2

TaskHook = Callable[[asyncio.Task[Any]], None]


class Job:
    """One answer that is being made here."""

    def __init__(self, asked: Asked, request: InferenceRequest, headers: dict[str, str]) -> None:
        self.asked = asked
        self.request = request
        self.headers = headers
        self.name = name_of(asked.who.tenant, asked.id)
        self.record = new_record(asked.id, ENDPOINTS[asked.url].id_prefix)
        self.flight = Flight(MOST_BYTES)
        """The events so far, for whoever reads along."""
        self.wish = DraftWish.OFF
        """How drafts are shown, once it is admitted."""
        self.draft: dict[str, Any] | None = None
        self.refused: FirstdraftError | None = None
        self.kept = asyncio.Event()
        """The store has it: it is the client's, who can ask for it anywhere."""
        self.admitted = asyncio.Event()
        """It will be answered, or is refused."""
        self.shown = asyncio.Event()
        """The draft is there, or none comes any more."""
        self.written = False
        """The store has the answer."""
        self.ended: Literal["", "cancelled", "lost"] = ""
        self.task: asyncio.Task[None] | None = None

    def on_admitted(self, exchange: Exchange, plan: Plan) -> None:
        """Policy and budget allow it."""
        self.wish = exchange.draft_wish
        if plan.draft is None:
            self.shown.set()
        self.admitted.set()

    async def on_event(self, event: Event) -> None:
        """Take the next event of its answer."""
        match event:
            case DraftCompleted():
                self.draft = draft_fields(event) | {"text": event.text}
                self.shown.set()
            case DraftJudged() | Relayed() | TextDelta() | Finished() | WholeAnswer():
                self.shown.set()
            case _:
                pass
        self.admitted.set()
        await self.flight.emit(event)

    def end(self, how: Literal["cancelled", "lost"]) -> None:
        """Nobody wants it any more from here."""
        if self.written:
            return
        self.ended = self.ended or how
        if self.task is not None:
            self.task.cancel()

    def over(self) -> None:
        """Nothing more comes."""
        self.admitted.set()
        self.shown.set()


class Later:
    """The answers that are made here; an async context manager. One for each worker process.

    Args:
        on_begin: called with each task that makes an answer, so that a drain waits for it; `on_end` when it is over.
    """

    def __init__(
        self,
        store: Store,
        answering: Answering,
        *,
        sealer: Sealer | None,
        lease_s: float,
        on_begin: TaskHook,
        on_end: TaskHook,
    ) -> None:
        self.news = News(store)
        self._answering = answering
        self._lease_s = lease_s
        codec = EntryCodec(MOST_BYTES, sealer)
        self._records = LaterRecords(store, codec, owner=secrets.token_hex(8), lease_s=lease_s)
        self._on_begin = on_begin
        self._on_end = on_end
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._forgetting: set[asyncio.Task[None]] = set()
        self._draining = False

    async def __aenter__(self) -> Self:
        self._tasks = {
            asyncio.create_task(self.news.run(), name="later: news"),
            asyncio.create_task(self._renew(), name="later: renew leases"),
            asyncio.create_task(self._take_over(), name="later: take over"),
        }
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        making = [job.task for job in self._jobs.values() if job.task is not None]
        if self._forgetting:
            await asyncio.wait(tuple(self._forgetting), timeout=_GIVE_UP_S)
        making += self._forgetting
        for task in (*self._tasks, *making):
            task.cancel()
        if tasks := (*self._tasks, *making):
            await asyncio.wait(tasks, timeout=_GIVE_UP_S)

    def drain(self) -> None:
        """Take nothing over any more; what is being made goes on until it is cancelled."""
        self._draining = True

    @property
    def running(self) -> int:
        """Answers that are being made here."""
        return len(self._jobs)

    def here(self, tenant: str, answer_id: str) -> Job | None:
        """The job that makes this answer, where it runs here."""
        return self._jobs.get(name_of(tenant, answer_id))

    # --- one answer -------------------------------------------------------------------------------------------

    async def begin(
        self, asked: Asked, request: InferenceRequest, *, headers: dict[str, str], record: RequestRecord
    ) -> Job:
        """Begin to make an answer; returns when it is admitted and kept, so that it can be asked for anywhere.

        What the decision says of itself is put into `headers`, and into the `record` of the request that asks.

        Raises:
            FirstdraftError: it is refused; nothing is kept.
        """
        tenant = asked.who.tenant
        if sum(job.asked.who.tenant == tenant for job in self._jobs.values()) >= MOST_OF_A_TENANT:
            message = f"{MOST_OF_A_TENANT} answers of this tenant are being made here: fetch some first, or wait."
            raise RateLimited(message, retry_after_s=5)
        job = self._start(Job(asked, wanting_draft(request, asked), headers))
        try:
            await job.admitted.wait()
            if job.refused is None:
                await self._records.create(job.name, asked)
                job.kept.set()
        except BaseException:  # nobody was told of it, whether the store has it or not
            self._forget(job)
            raise
        finally:
            record.take_decision(job.record)
        if job.refused is not None:
            record.take(job.record)
            raise job.refused
        return job

    async def shown(self, job: Job) -> dict[str, Any] | None:
        """The draft, as soon as it is whole; None: there is none, or the final was faster."""
        try:
            await job.shown.wait()
            if job.draft is not None:
                with contextlib.suppress(StoreUnavailable):
                    await self._records.note_draft(job.name, job.draft)
        except asyncio.CancelledError:  # whoever asked left before he knew what to ask for
            self._forget(job)
            raise
        return job.draft

    async def get(self, tenant: str, answer_id: str, *, wait_s: float = 0.0) -> Kept | None:
        """What the store has of it; waits until it is over, `wait_s` at most, and for the store as well.

        Raises StoreUnavailable.
        """
        name, woken = name_of(tenant, answer_id), asyncio.Event()
        if wait_s <= 0:
            return await self._records.get(name)
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        with self.news.hearing(name, lambda _: woken.set()):
            while True:
                woken.clear()
                pause_s, left_s = _ASK_AGAIN_S, end - loop.time()
                try:
                    await self.news.begin()
                    kept = await self._records.get(name)
                    if kept is None or kept.state != "running" or left_s <= 0:
                        return kept
                except StoreUnavailable:
                    pause_s = _STORE_PAUSE_S
                    if left_s <= 0:
                        raise
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left_s, pause_s)):
                        await woken.wait()

    async def cancel(self, tenant: str, answer_id: str) -> bool:
        """End it, wherever it is made; False: it was over, or there is none. Raises StoreUnavailable."""
        name = name_of(tenant, answer_id)
        cancelled = await self._records.cancel(name)
        if cancelled:
            await self.news.tell(CANCELLED, name)
        return cancelled

    async def delete(self, tenant: str, answer_id: str) -> bool:
        """Forget it, and end it if it is still made; False: there is none. Raises StoreUnavailable."""
        name = name_of(tenant, answer_id)
        deleted = await self._records.delete(name)
        if deleted:
            await self.news.tell(CANCELLED, name)
        return deleted

    def _forget(self, job: Job) -> None:
        """Nobody will ask for it: end it, and have the store forget it, as soon as it can."""
        job.end("lost")
        task = asyncio.create_task(self._delete_at_last(job.name), name="later: forget")
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def _delete_at_last(self, name: str) -> None:
        end = asyncio.get_running_loop().time() + _WRITE_FOR_S
        while asyncio.get_running_loop().time() < end:
            try:
                await self._records.delete(name)
            except StoreUnavailable:
                await asyncio.sleep(_STORE_PAUSE_S)
            else:
                return

    def _start(self, job: Job) -> Job:
        self._jobs[job.name] = job
        job.task = asyncio.create_task(self._make(job), name="answer later")
        self._on_begin(job.task)
        job.task.add_done_callback(lambda task: self._over(job, task))
        return job

    def _over(self, job: Job, task: asyncio.Task[None]) -> None:
        self._on_end(task)
        self._jobs.pop(job.name, None)
        job.flight.end(_why(job, task))
        job.over()
        if (fault := error_of(task)) is not None:
            structlog.get_logger().error("later_failed", exc_info=fault)

    async def _make(self, job: Job) -> None:
        try:
            with self.news.hearing(job.name, lambda what: job.end("cancelled") if what == CANCELLED else None):
                answer = await self._answered(job)
                if answer is not None:
                    await job.kept.wait()
                    await self._write(job, answer)
        except asyncio.CancelledError:
            if job.kept.is_set() and not job.ended:
                with contextlib.suppress(StoreUnavailable):
                    await self._records.give_up(job.name)
                structlog.get_logger().info("later_given_up", id=job.asked.id, tenant=job.asked.who.tenant)
            raise

    async def _answered(self, job: Job) -> Answer | None:
        """The answer, or the error that its client would have got; None: it is refused before anybody was told."""
        try:
            answer = await self._answering.answer(
                job.asked,
                job.request,
                record=job.record,
                headers=job.headers,
                emit=job.on_event,
                on_admitted=job.on_admitted,
            )
        except FirstdraftError as error:
            if not job.admitted.is_set() and not job.kept.is_set():
                job.refused = error
                job.over()
                return None
            job.over()
            job.flight.end(error)
            answer = failed(error, job.record.request_id)
        except asyncio.CancelledError:
            self._answering.finish(job.record)
            raise
        self._answering.finish(job.record)
        return answer

    async def _write(self, job: Job, answer: Answer) -> None:
        """Have the store keep the answer, as soon as it can; once."""
        loop, pause_s = asyncio.get_running_loop(), 0.1
        end = loop.time() + _WRITE_FOR_S
        if len(answer.body) > _LONGEST_ANSWER:
            answer = failed(InternalError("this answer is too large to be kept"), job.record.request_id)
        while True:
            try:
                job.written = await self._records.finish(job.name, answer)
                if not job.written:
                    structlog.get_logger().warning("later_not_ours", id=job.asked.id, tenant=job.asked.who.tenant)
                break
            except ValueError as error:  # text that is no Unicode
                structlog.get_logger().error("later_not_kept", id=job.asked.id, reason=str(error))
                answer = failed(InternalError("this answer cannot be kept"), job.record.request_id)
            except StoreUnavailable as error:
                if loop.time() > end:
                    structlog.get_logger().error("later_not_kept", id=job.asked.id, reason=error.message)
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, 5.0)
        await self.news.tell(DONE, job.name)

    # --- leases -----------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Show that this gateway lives, every third of a lease. Runs for ever."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            jobs = [job for job in self._jobs.values() if job.kept.is_set()]
            if not jobs:
                continue
            try:
                ours = await self._records.renew([job.name for job in jobs])
            except StoreUnavailable:
                continue
            for job, is_ours in zip(jobs, ours, strict=True):
                if not is_ours:
                    job.end("lost")

    async def _take_over(self) -> None:
        """Begin anew what gateways that are gone were making: at the start, and a few times in each lease."""
        while True:
            try:
                if not self._draining:
                    for claimed in await self._records.abandoned(_MOST_TAKEN_OVER):
                        await self._again(claimed)
            except Exception as error:  # noqa: BLE001 whatever one of them does, others are still to be taken over
                if not isinstance(error, StoreUnavailable):
                    structlog.get_logger().exception("take_over_failed")
            await asyncio.sleep(self._lease_s / 4 * random.uniform(0.8, 1.2))  # noqa: S311 spreads gateways

    async def _again(self, claimed: Claimed) -> None:
        asked = claimed.asked
        log = structlog.get_logger().bind(id=asked.id, tenant=asked.who.tenant, tries=claimed.tries)
        if claimed.name in self._jobs:  # frozen for longer than its lease, it is still being made here
            return
        if claimed.tries > MOST_TRIES:
            log.error("later_abandoned")
            error = InternalError("it was begun too often")
            await self._write(Job(asked, _NOTHING, {}), failed(error, new_record(asked.id, "").request_id))
            return
        log.warning("later_taken_over")
        try:
            request = ENDPOINTS[asked.url].decode(asked.body)
        except InvalidRequest as error:  # a newer version reads it otherwise
            await self._write(Job(asked, _NOTHING, {}), failed(error, new_record(asked.id, "").request_id))
            return
        job = Job(asked, wanting_draft(request, asked), {})
        job.kept.set()
        self._start(job)


def _why(job: Job, task: asyncio.Task[None]) -> FirstdraftError | None:
    """What those are told who read along; None: there is all of it."""
    if job.ended == "cancelled":
        return InvalidRequest("This response was cancelled.", code="response_cancelled")
    if task.cancelled():
        return ShuttingDown("Another gateway makes this response from here on: read it again, without starting_after.")
    return None


_NOTHING = InferenceRequest(surface="chat", model="", messages=(), fields={})
