"""What comes of a batch's line: its answer, or the error that it ends with.

Nobody waits for a line, so it gives way: the edge and busy backends serve those first that somebody waits for, and the
tenant's rate is waited for. A budget that is spent is the line's error, but only when none of the tenant's lines that
run here could give something back. Other passing errors are tried again, a few times, with pauses.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from dataclasses import dataclass, field

from gateway.errors import BudgetSpent, FirstdraftError, RateLimited, StoreUnavailable
from gateway.jobs.answering import Answer, Answering, failed, new_record
from gateway.jobs.asked import Asked
from gateway.jobs.batches import Batches, How, Mode, Spec
from gateway.jobs.endpoints import ENDPOINTS, decode_line
from gateway.jobs.queue import Ticket
from gateway.jobs.turns import Turns
from gateway.telemetry.record import RequestRecord
from gateway.wire.openai_files import BatchLine, encode_not_done, encode_result

MOST_TRIES = 5
"""A line that so many gateways died of is not begun again."""
STORE_PAUSE_S = 1.0
"""About so long is waited for a store that is away, before it is asked again."""
_TRIES_OF_ERRORS = 4
_LONGEST_PAUSE_S = 30.0
_LONGEST_ANSWER = 12 * 1024 * 1024
_EXPIRED, _GAVE_UP, _TOO_LARGE, _NOT_HERE = "batch_expired", "gave_up", "answer_too_large", ""
_NOT_DONE = {
    _EXPIRED: "The batch's time was over before this line was answered.",
    _GAVE_UP: f"Gateways ended {MOST_TRIES} times while they answered this line.",
    _TOO_LARGE: f"The answer has more than {_LONGEST_ANSWER:,} bytes.",
}


@dataclass(slots=True, kw_only=True, eq=False)
class Work:
    """A piece in hand."""

    ticket: Ticket
    spec: Spec
    piece: int
    mode: Mode
    running: set[asyncio.Task[None]] = field(default_factory=set)
    """Lines of which nothing is known yet."""
    begun: set[int] = field(default_factory=set)
    """Numbers of the lines that are being answered."""

    def now(self, mode: Mode) -> None:
        """What was heard of the batch: lines of one that is not open any more are ended."""
        if self.wanted:  # what was given up once is not taken up again
            self.mode = mode
        if not self.wanted:
            for task in self.running:
                task.cancel()

    @property
    def wanted(self) -> bool:
        """Lines may be begun."""
        return self.mode in {"open", "ending"}


class LineAnswers:
    """One for all batches of a worker process; at most `at_once` lines are answered at the same time."""

    def __init__(self, batches: Batches, answering: Answering, *, at_once: int) -> None:
        self.draining = False
        """No line is begun any more."""
        self._batches = batches
        self._answering = answering
        self._places = asyncio.Semaphore(at_once)
        self._turns = Turns()

    async def came_of(self, work: Work, number: int, line: BatchLine) -> tuple[bytes, How] | None:
        """What came of it, as a line of the results or errors; None: it is not begun here, or not wanted any more."""
        line_id = f"batch_req_{secrets.token_hex(12)}"
        record = RequestRecord(request_id="")
        found: Answer | str = await self._answer(work, number, line, record)
        if isinstance(found, Answer) and len(found.body) > _LONGEST_ANSWER:
            found = _TOO_LARGE
        if isinstance(found, Answer):
            text = encode_result(
                line_id=line_id,
                custom_id=line.custom_id,
                status=found.status,
                request_id=record.request_id,
                body=found.body,
            )
            return text, "failed" if found.failed else "completed"
        if found == _NOT_HERE:
            return None
        text = encode_not_done(line_id=line_id, custom_id=line.custom_id, code=found, message=_NOT_DONE[found])
        return text, "expired" if found == _EXPIRED else "failed"

    async def _answer(self, work: Work, number: int, line: BatchLine, told: RequestRecord) -> Answer | str:
        """The answer, or why there is none; `told` gets the id of the request that it came of."""
        tenant, tries = work.spec.who.tenant, 0
        while True:
            await self._turns.free(tenant)
            request_id = told.request_id = f"req-{secrets.token_hex(12)}"
            async with self._places:
                try:
                    refusal = await self._refusal(work, number)
                    if refusal is not None:
                        return refusal
                    with self._turns.running(tenant):
                        answer = await self._once(work.spec, line, request_id)
                    work.begun.discard(number)
                    return answer
                except FirstdraftError as error:
                    failure = error
            tries += 1
            if not await self._may_try_again(failure, tenant, tries):
                work.begun.discard(number)
                return failed(failure, request_id)

    async def _refusal(self, work: Work, number: int) -> str | None:
        """Why a line is not begun; None: it is. Raises StoreUnavailable."""
        if self.draining or not work.wanted:
            return _NOT_HERE
        if work.mode == "ending" or time.time() > work.spec.ends:
            return _EXPIRED
        if number not in work.begun:
            if await self._batches.tried(work.ticket.batch, work.piece, number) > MOST_TRIES:
                return _GAVE_UP
            work.begun.add(number)
        return None

    async def _may_try_again(self, failure: FirstdraftError, tenant: str, tries: int) -> bool:
        """Wait until another try may do better; False: none will."""
        match failure:
            case RateLimited(retry_after_s=None):  # it is too large for the rate, whenever it comes
                return False
            case RateLimited():
                self._turns.pause(tenant, failure.retry_after_s or 0.0)
                return True
            case BudgetSpent():
                return await self._turns.another_ended(tenant)
            case StoreUnavailable():
                await asyncio.sleep(STORE_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311 spreads lines
                return True
            case _ if failure.retryable and tries < _TRIES_OF_ERRORS:
                pause_s = max(failure.retry_after_s or 0.0, random.uniform(0.0, 2.0**tries))  # noqa: S311 as above
                await asyncio.sleep(min(pause_s, _LONGEST_PAUSE_S))
                return True
            case _:
                return False

    async def _once(self, spec: Spec, line: BatchLine, request_id: str) -> Answer:
        """One request, as any client's. Its record is written, unless nothing was asked and it is tried again."""
        prefix = ENDPOINTS[spec.endpoint].id_prefix
        asked = Asked(
            url=spec.endpoint,
            id=f"{prefix}{request_id.removeprefix('req-')}",
            body=bytes(line.body),
            who=spec.who,
            created=int(time.time()),
            job="batch",
        )
        record, is_asked = new_record(asked.id, prefix), True
        try:
            return await self._answering.answer(asked, decode_line(spec.endpoint, asked.body), record=record)
        except (RateLimited, StoreUnavailable):
            is_asked = bool(record.attempts)
            raise
        finally:
            if is_asked:
                self._answering.finish(record)
