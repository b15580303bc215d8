"""Works batches off: takes tickets from the queue, a piece of a batch for each, and answers the piece's lines.

ticket ──a piece is taken──▶ its lines, so many at once ──each noted──▶ the ticket goes back
   ├──all pieces are done──▶ the batch is finished, and the ticket dropped
   └──others work on the rest──▶ it is left to be claimed when they should have been done
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from types import TracebackType
from typing import Self

import structlog

from gateway.errors import InvalidRequest, NotFound, StoreUnavailable
from gateway.jobs.batches import Batches, Spec
from gateway.jobs.files import Files
from gateway.jobs.later import TaskHook
from gateway.jobs.line_answers import STORE_PAUSE_S, LineAnswers, Work
from gateway.jobs.lines import lines_of
from gateway.jobs.news import CANCELLED, News
from gateway.jobs.queue import Queue, Ticket
from gateway.tasks import error_of
from gateway.wire.openai_files import BatchLine

_MOST_PIECES = 16
"""Of all batches, worked on at once here."""
_MOST_PIECES_OF_A_TENANT = 4
_ANOTHERS_TURN_S = 0.5


class BatchWorker:
    """One for each worker process; an async context manager.

    Args:
        answers: None: other gateways work batches off, not this one.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        batches: Batches,
        files: Files,
        answers: LineAnswers | None,
        news: News,
        lease_s: float,
        on_begin: TaskHook,
        on_end: TaskHook,
    ) -> None:
        self._queue = queue
        self._batches = batches
        self._files = files
        self._answers = answers
        self._news = news
        self._lease_s = lease_s
        self._pieces = asyncio.Semaphore(_MOST_PIECES)
        self._on_begin = on_begin
        self._on_end = on_end
        self._tasks: set[asyncio.Task[None]] = set()
        self._hands: dict[asyncio.Task[None], Work | None] = {}
        self._draining = False

    async def __aenter__(self) -> Self:
        if self._answers is not None:
            self._tasks = {
                asyncio.create_task(self._take_tickets(self._answers), name="batches: take tickets"),
                asyncio.create_task(self._renew(), name="batches: renew leases"),
            }
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = (*self._tasks, *self._hands)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2.0)

    @property
    def running(self) -> int:
        """Pieces that are in hand."""
        return len(self._hands)

    def drain(self) -> None:
        """Begin no line any more; the lines that run go on, until they are cancelled."""
        self._draining = True
        if self._answers is not None:
            self._answers.draining = True

    # --- tickets ----------------------------------------------------------------------------------------------

    async def _take_tickets(self, answers: LineAnswers) -> None:
        """Take tickets as long as there are hands for them. Runs until it is cancelled."""
        opened, claimed_at = False, 0.0
        loop = asyncio.get_running_loop()
        while not self._draining:
            await self._pieces.acquire()
            ticket = None
            try:
                if not opened:
                    await self._queue.open()
                    opened = True
                if loop.time() - claimed_at > self._lease_s / 4:
                    ticket = await self._queue.claim()
                    claimed_at = claimed_at if ticket is not None else loop.time()
                ticket = ticket or await self._queue.take()
            except Exception as error:  # noqa: BLE001 whatever happens, batches are worked on when it is over
                if not isinstance(error, StoreUnavailable):
                    structlog.get_logger().exception("batch_queue_failed")
                opened = False
                await asyncio.sleep(STORE_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311 spreads gateways
            if ticket is None:
                self._pieces.release()
                continue
            task = asyncio.create_task(self._hold(ticket, answers), name="batch piece")
            self._hands[task] = None
            self._on_begin(task)
            task.add_done_callback(self._put_down)

    def _put_down(self, task: asyncio.Task[None]) -> None:
        self._hands.pop(task, None)
        self._on_end(task)
        self._pieces.release()
        if (fault := error_of(task)) is not None:
            structlog.get_logger().error("batch_piece_failed", exc_info=fault)

    async def _hold(self, ticket: Ticket, answers: LineAnswers) -> None:
        """One turn of a batch."""
        try:
            spec = await self._batches.spec(ticket.batch)
            if spec is None:
                await self._queue.drop(ticket)
                return
            if self._has_its_part(spec.who.tenant):
                await asyncio.sleep(_ANOTHERS_TURN_S)
                await self._queue.again(ticket)
                return
            mode, piece = await self._batches.take(ticket.batch)
            if mode in {"gone", "over"}:
                await self._queue.drop(ticket)
            elif piece == -1:
                await self._finish(ticket, spec)
            elif piece >= 0:
                await self._work(Work(ticket=ticket, spec=spec, piece=piece, mode=mode), answers)
        except StoreUnavailable as error:  # the ticket is claimed again
            structlog.get_logger().warning("batch_piece_left", reason=error.message)
            await asyncio.sleep(STORE_PAUSE_S)

    def _has_its_part(self, tenant: str) -> bool:
        """Others' batches must not wait for those of a tenant that is out of its rate."""
        held = sum(work is not None and work.spec.who.tenant == tenant for work in self._hands.values())
        return held >= _MOST_PIECES_OF_A_TENANT

    async def _finish(self, ticket: Ticket, spec: Spec) -> None:
        state = await self._batches.finish(ticket.batch, spec)
        await self._queue.drop(ticket)
        log = structlog.get_logger()
        log.info("batch_over", batch=spec.id, tenant=spec.who.tenant, state=state, lines=spec.lines)

    async def _renew(self) -> None:
        """Show that this gateway lives, every third of a lease; hears what became of its batches. Runs for ever."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            for work in [work for work in self._hands.values() if work is not None]:
                with contextlib.suppress(StoreUnavailable):
                    is_ours = await self._queue.renew(work.ticket)
                    mode = await self._batches.keep(work.ticket.batch, work.piece)
                    work.now(mode if is_ours else "lost")

    # --- one piece --------------------------------------------------------------------------------------------

    async def _work(self, work: Work, answers: LineAnswers) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._hands[task] = work
        name, piece = work.ticket.batch, work.piece
        try:
            with self._news.hearing(name, lambda what: work.now("cancelling") if what == CANCELLED else None):
                await self._answer_lines(work, answers)
            if work.mode != "lost" and not await self._batches.done(name, piece):
                await self._batches.give_up(name, piece)
            await self._queue.again(work.ticket)
        except asyncio.CancelledError:
            with contextlib.suppress(StoreUnavailable):
                for line in work.begun:
                    await self._batches.tried(name, piece, line, -1)
                await self._batches.give_up(name, piece)
                await self._queue.again(work.ticket)
            raise

    async def _answer_lines(self, work: Work, answers: LineAnswers) -> None:
        spec, name = work.spec, work.ticket.batch
        try:
            data = await self._files.piece(spec.who.tenant, spec.input_file_id, work.piece)
            lines = lines_of(data, spec.first_of(work.piece))
        except NotFound as error:
            await self._batches.fail(name, "file_not_found", error.message)
            return
        except InvalidRequest as error:  # another version took it, and reads it otherwise
            await self._batches.fail(name, "invalid_jsonl", error.message)
            return
        first, known = spec.first_of(work.piece), await self._batches.known(name, work.piece)
        async with asyncio.TaskGroup() as group:
            for number, line in enumerate(lines, start=first):
                if number not in known:
                    work.running.add(group.create_task(self._line(work, answers, number, line)))

    async def _line(self, work: Work, answers: LineAnswers, number: int, line: BatchLine) -> None:
        found = await answers.came_of(work, number, line)
        task = asyncio.current_task()
        if task is not None:
            work.running.discard(task)  # from here on it is not given up: it is paid for
        while found is not None:
            text, how = found
            try:
                work.now(await self._batches.note(work.ticket.batch, work.piece, number, text, how))
                return
            except StoreUnavailable:
                await asyncio.sleep(STORE_PAUSE_S)
