"""The decode loop: plan a step, decode it, sample, deliver; again.

Threads. `run` has a thread of its own, and everything of the model, the scheduler and the answers belongs to it. Other
threads only call `submit`, `cancel`, `cancel_all`, `ask_stats` and `stop`, which leave a note in the inbox and wake the
loop; notes are read between two steps. What comes out goes through `deliver`, once a step, in the loop's thread.

A fault in here ends the process: it is started again, and no half-known state is kept.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.edge.answer import Answer
from gateway.edge.job import Job, Prompt
from gateway.edge.measurement import Measurement, Sizes
from gateway.edge.protocol import Done, Failed, Load, Stats, Submit, Token
from gateway.edge.sampling import NO_TOKEN, Choice, Held, Logits, Sampler, Spread
from gateway.edge.scheduler import Batch, Limits, Memory, Scheduler
from gateway.edge.text import TextGate
from gateway.errors import EdgeOverloaded, EdgeUnsuitable
from gateway.inference.events import TokenLogprob

Output = Token | Done | Failed | Stats
Deliver = Callable[[list[tuple[object, Output]], Load], None]


class Decoder(Memory, Sizes, Protocol):
    """What the loop needs of a model."""

    eog: frozenset[int]
    spread: Callable[[Logits], Spread]
    """How the probability of a row is spread."""

    def decode(self, batch: Batch) -> bool:
        """Decodes the rows; False when it was aborted."""

    def abort(self) -> None:
        """Ends the running `decode`; called from another thread."""

    def logits(self, row: int) -> Logits:
        """Logits of one row of the step just decoded."""

    def piece(self, token: int) -> bytes:
        """Bytes of a token."""

    def word(self, token: int) -> bytes:
        """Bytes of a token; of a control token its name."""

    def grammar(self, text: str) -> Held:
        """What holds one answer to a grammar. Raises EdgeUnsuitable when it cannot be followed."""


@dataclass(frozen=True, slots=True)
class _Submitted:
    owner: object
    request: Submit
    tokens: list[int]
    max_tokens: int
    arrived_s: float
    grammar: str


@dataclass(frozen=True, slots=True)
class _Cancelled:
    owner: object
    number: int | None
    """None: all of this owner's."""


@dataclass(frozen=True, slots=True)
class _StatsAsked:
    owner: object
    number: int


class Engine:
    """The loop and its inbox. `owner` is whoever submitted: handed back with every output, compared by identity."""

    def __init__(
        self, model: Decoder, limits: Limits, deliver: Deliver, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._model = model
        self._deliver = deliver
        self._clock = clock
        self._scheduler = Scheduler(limits, model)
        self._measured = Measurement()
        self._answers: dict[tuple[int, int], Answer] = {}
        self._inbox: deque[_Submitted | _Cancelled | _StatsAsked] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._outputs: list[tuple[object, Output]] = []
        self._step_started_s = 0.0
        self._running: frozenset[tuple[int, int]] = frozenset()
        """Whose rows are being decoded: read by other threads, replaced as a whole."""

    # --- for other threads --------------------------------------------------------------------------------------

    def submit(self, owner: object, request: Submit, prompt: Prompt, max_tokens: int, arrived_s: float) -> None:
        """A prepared request; `arrived_s` by the engine's clock."""
        self._note(_Submitted(owner, request, prompt.tokens, max_tokens, arrived_s, prompt.grammar))

    def cancel(self, owner: object, number: int) -> None:
        """Ends a request before the next step; nothing more is delivered for it once the loop has read this.

        A step that decodes for nobody else is aborted.
        """
        self._note(_Cancelled(owner, number))
        if self._running == {(id(owner), number)}:
            self._model.abort()

    def cancel_all(self, owner: object) -> None:
        """Ends all requests of this owner, likewise."""
        self._note(_Cancelled(owner, None))
        running = self._running
        if running and all(key[0] == id(owner) for key in running):
            self._model.abort()

    def ask_stats(self, owner: object, number: int) -> None:
        """Delivers Stats after what was noted before."""
        self._note(_StatsAsked(owner, number))

    def stop(self) -> None:
        """Ends `run` after the running step."""
        self._stopping = True
        self._wake.set()

    def step_age_s(self) -> float:
        """How long the running step has taken so far; 0 between steps."""
        started = self._step_started_s
        return self._clock() - started if started else 0.0

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens a second, as measured of late; 0 before the first step."""
        return self._measured.prefill_rate

    def expect(self, prefill_rate: float) -> None:
        """Takes this rate for measured, until there are measurements. Before `run`."""
        self._measured.expect(prefill_rate)

    def _note(self, note: _Submitted | _Cancelled | _StatsAsked) -> None:
        self._inbox.append(note)
        self._wake.set()

    # --- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serves until `stop`."""
        while not self._stopping:
            if not self.turn():
                self._wake.wait()
            self._wake.clear()

    def turn(self) -> bool:
        """Reads the inbox and makes one step. False when there was none to make."""
        begun = self._clock()
        while self._inbox:
            self._read(self._inbox.popleft())
        batch = self._scheduler.plan(begun)
        if batch is not None:
            self._step(batch)
        if self._outputs or batch is not None:
            outputs, self._outputs = self._outputs, []
            self._deliver(outputs, self._load())
        if batch is not None:
            self._measured.turn_s += self._clock() - begun
        return batch is not None

    def _step(self, batch: Batch) -> None:
        started = self._step_started_s = self._clock()
        self._running = frozenset(job.key for job, _ in batch.parts)
        decoded = self._model.decode(batch)
        self._running = frozenset()
        ended = self._clock()
        self._step_started_s = 0.0
        if not decoded:
            self._scheduler.undo(batch)
            return
        self._scheduler.commit(batch)
        self._measured.step(batch, ended - started)
        for row, job in batch.sampled:
            self._advance(self._answers[job.key], row, ended)

    def _advance(self, answer: Answer, row: int, now_s: float) -> None:
        job = answer.job
        if job.first_token_s is None:
            job.first_token_s = now_s
            self._measured.queue_s += (job.begun_s or now_s) - job.arrived_s
        choice = answer.sampler.choose(self._model.logits(row))
        if choice.token == NO_TOKEN or choice.token in self._model.eog:
            token = answer.end()
        else:
            self._scheduler.accept(job, choice.token)
            said = self._said(choice) if answer.sampler.tells else None
            token = answer.take(choice, self._model.piece(choice.token), said)
        if token is not None:
            self._outputs.append((answer.owner, token))
        if answer.finish_reason is not None:
            self._scheduler.finish(job)
            del self._answers[job.key]
            self._measured.finished += 1
            self._outputs.append((answer.owner, answer.done(now_s)))

    def _said(self, choice: Choice) -> TokenLogprob:
        """What a client is told of a token that asked for log-probabilities."""
        word = self._model.word
        return TokenLogprob(
            word(choice.token), choice.logprob, tuple((word(other), sure) for other, sure in choice.top)
        )

    # --- the inbox ----------------------------------------------------------------------------------------------

    def _read(self, note: _Submitted | _Cancelled | _StatsAsked) -> None:
        match note:
            case _Submitted():
                self._admit(note)
            case _Cancelled(owner, None):
                for answer in [answer for answer in self._answers.values() if answer.owner is owner]:
                    self._cancel(answer)
            case _Cancelled(owner, int(number)):
                if (found := self._answers.get((id(owner), number))) is not None:
                    self._cancel(found)
            case _StatsAsked(owner, number):
                self._outputs.append((owner, self._stats(number)))

    def _admit(self, note: _Submitted) -> None:
        request = note.request
        self._measured.requests += 1
        job = Job(
            key=(id(note.owner), request.id),
            tokens=note.tokens,
            max_tokens=note.max_tokens,
            tenant=request.tenant,
            priority=request.priority,
            domain=f"tenant {request.tenant}" if request.isolated else "",
            arrived_s=note.arrived_s,
        )
        try:
            grammar = self._model.grammar(note.grammar) if note.grammar else None
        except EdgeUnsuitable as error:
            self._measured.refused += 1
            self._outputs.append((note.owner, Failed(request.id, error.code or "", error.message)))
            return
        answer = Answer(
            owner=note.owner,
            number=request.id,
            job=job,
            sampler=Sampler(request.sampling, self._model.spread, grammar),
            gate=TextGate(request.sampling.stop),
        )
        late = self._too_late(job, request.ttft_within_s)
        if late:
            self._refuse(answer, late)
            return
        refused = self._scheduler.submit(job)
        if refused is not job:
            self._answers[job.key] = answer
        if refused is not None:
            victim = self._answers.pop(refused.key, answer)
            self._refuse(victim, f"the edge's queue is full: {len(self._scheduler.queue)} requests wait")

    def _too_late(self, job: Job, within_s: float | None) -> str:
        if within_s is None or not self._measured.prefill_rate:
            return ""
        uncached = self._scheduler.uncached(job.domain, job.tokens)
        load = self._load()
        predicted_s = load.wait_s + (load.queued_tokens + uncached) / load.prefill_rate
        if predicted_s <= within_s:
            return ""
        return (
            f"the first token would come after {predicted_s:.2f} s, later than the {within_s:.2f} s that were given: "
            f"{load.queued_tokens} tokens wait, {uncached} are to be read"
        )

    def _refuse(self, answer: Answer, message: str) -> None:
        self._measured.refused += 1
        self._outputs.append((answer.owner, Failed(answer.number, EdgeOverloaded.code or "", message)))

    def _cancel(self, answer: Answer) -> None:
        self._scheduler.cancel(answer.job)
        del self._answers[answer.job.key]
        self._measured.cancelled += 1

    # --- what others want to know -------------------------------------------------------------------------------

    def _load(self) -> Load:
        return self._measured.load(self._scheduler)

    def _stats(self, number: int) -> Stats:
        return self._measured.stats(number, self._scheduler, self._model)
