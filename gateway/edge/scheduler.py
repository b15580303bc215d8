"""Which tokens go into the next step: continuous batching as a pure state machine.

Theory. One context serves many sequences at once. A step decodes one batch of rows (a row: one token of one sequence).

  - A job that produces has one row in every step: its newest token. Up to `step_rows` rows of prompts go with them, so
    that a long prompt makes the steps of those who already see text longer, and stops nobody. The weights are read from
    memory once for all (64 to read: 39 ms; 16 to produce: 26 ms; both in one step: 56 ms). That needs our attention
    (deploy/llama_cpp): llama.cpp's own takes, over 64 rows or more, the cells of all sequences for each of them (49 and
    15 in one step: 420 ms). With that one, reading and producing take turns wherever a step would be full.
  - The oldest reads first, interactive before background: finishing one after the other gives a better median TTFT
    than all at once. In a crowd some go side by side, so that the last waits less than twice as long as the median.
    One that begins with what another is just reading waits for that, and copies it.
  - The prefix cache is looked up when a job's first row is planned, not when it arrives: so a job finds what the one
    before it has just read.

Where a job can be:

    submit -> waiting --admit--> active --finish/cancel--> gone   (its sequence becomes a kept prefix)
                 ^                  |
                 '------preempt-----'

Cells. A kept prefix is evicted whenever a row needs its cells. Jobs are admitted for what they need soon, not for the
worst case, so cells can run out in mid-answer. Then a job may take the place of those only that rank lower (background,
or younger); they go back to the queue and are read again later. The first in rank can therefore always go on: it has a
row in every step, or in every third where reading and producing take turns.

No I/O, no llama.cpp, no clock: `Memory` is what it asks of the model, and times are given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.edge.cells import Cells
from gateway.edge.job import NO_SEQUENCE, Job
from gateway.edge.prefixes import Prefix, Prefixes, common_length
from gateway.edge.queue import FairQueue

_CROWD = 8
"""Active jobs beyond which prompts share a step, until half of the jobs have read theirs."""
_TOGETHER = 1 / 3
"""How many share it: of all that are active."""
_READING_STEPS = 2
"""Steps for reading between two for producing, where these take turns."""
_WORTH_WAITING = 16
"""Tokens that another is about to read, from which on a job waits for them."""


class Memory(Protocol):
    """The KV cache's sequences."""

    def trim(self, sequence: int, length: int) -> None:
        """The sequence keeps its first `length` tokens."""

    def copy(self, source: int, target: int, length: int) -> None:
        """The empty sequence `target` begins with the first `length` tokens of `source`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes. `cells` is the KV cache in tokens, `sequences` counts running and kept together."""

    cells: int = 8_192
    sequences: int = 24
    active: int = 16
    waiting: int = 64
    step_rows: int = 64
    """Most prompt tokens of a step: how much longer a reader makes it for the others."""
    growth_tokens: int = 256
    """Tokens of an answer that admission sets aside; one that grows longer may cost a younger job its place."""
    turns: bool = False
    """Whether reading and producing take turns: see above."""

    @property
    def rows(self) -> int:
        """Most rows of a step."""
        return self.step_rows + self.active


@dataclass(slots=True)
class Batch:
    """The rows of one step, column by column."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    parts: list[tuple[Job, int]] = field(default_factory=list)
    """Each job and how many rows it has here; its rows stand together."""
    sampled: list[tuple[int, Job]] = field(default_factory=list)
    """Rows whose logits are wanted, and for whom."""
    prefill_tokens: int = 0
    decode_tokens: int = 0


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefix_hits: int = 0
    preemptions: int = 0


class Scheduler:
    """Jobs, their sequences and the prefixes kept. Not for several threads."""

    def __init__(self, limits: Limits, memory: Memory) -> None:
        if limits.sequences < limits.active or limits.active < 1 or limits.step_rows < 1:
            raise ValueError("each active job needs a sequence, and a step needs room for a prompt token")
        self.limits = limits
        self.queue = FairQueue(limits.waiting)
        self.active: list[Job] = []
        self.cells = Cells(limits.cells)
        self.prefixes = Prefixes()
        self.counters = Counters()
        self._memory = memory
        self._free_sequences = list(range(limits.sequences - 1, -1, -1))
        self._read_since = 0
        """Steps since one in which all who could produced."""

    # --- jobs come and go ---------------------------------------------------------------------------------------

    def submit(self, job: Job) -> Job | None:
        """Takes a job. Returns the one that is refused because the queue is full: maybe this one."""
        if job.most_tokens > self.limits.cells or not job.tokens or job.max_tokens < 1:
            raise ValueError("a job needs a prompt, a token to produce, and must fit the cache")
        if len(self.queue) >= self.limits.waiting:
            self._admit()
        return self.queue.add(job, [running.tenant for running in self.active])

    def cancel(self, job: Job) -> None:
        """The job ends, wherever it is; what it read is kept as a prefix."""
        if job in self.active:
            self.finish(job)
        else:
            self.queue.remove(job)

    def finish(self, job: Job) -> None:
        """The active job ends; its sequence is kept as a prefix."""
        self.active.remove(job)
        self._let_go(job)

    def accept(self, job: Job, token: int) -> None:
        """The active job's next token was sampled."""
        job.tokens.append(token)

    # --- one step -----------------------------------------------------------------------------------------------

    def plan(self, now_s: float) -> Batch | None:
        """The next step's rows, or None when nobody has anything to do. Follow with `commit` or `undo`."""
        self._admit()
        if not self.active:
            return None
        batch = Batch()
        ranked = self._ranked()
        producers = [job for job in ranked if _produces(job)]
        readers = [job for job in ranked if not _produces(job)]
        alone = self.limits.turns and sum(job.pending for job in ranked) >= self.limits.step_rows
        # Whoever is first in rank takes cells first.
        read_first = self._read_since < _READING_STEPS if alone else ranked[0] in readers
        if read_first:
            self._read_prompts(readers, batch, now_s)
        if not alone or not batch.parts:
            self._produce(producers, batch)
        if not read_first and (not alone or not batch.parts):
            self._read_prompts(readers, batch, now_s)
        return batch

    def commit(self, batch: Batch) -> None:
        """The step was decoded."""
        self._read_since = 0 if batch.decode_tokens else self._read_since + 1
        for job, rows in batch.parts:
            job.computed += rows
            self.queue.count(job.tenant, rows)

    def undo(self, batch: Batch) -> None:
        """The step was aborted: every sequence goes back to where it was before."""
        for job, _ in batch.parts:
            self.cells.trim(job.sequence, job.computed)
            self._memory.trim(job.sequence, job.computed)

    # --- what others want to know -------------------------------------------------------------------------------

    def uncached(self, domain: str, tokens: list[int]) -> int:
        """Tokens of this prompt that would have to be read now."""
        return len(tokens) - self._match(domain, tokens)[1]

    def queued_tokens(self) -> int:
        """Prompt tokens that come before a new request's (an upper bound: prefixes may spare some)."""
        reading = sum(job.pending for job in self.active if job.pending > 1)
        return reading + sum(job.pending for job in self.queue)

    def steps_until_place(self) -> int:
        """Most steps until a job could be admitted, if all places are taken: answers may end sooner."""
        if len(self.active) < self.limits.active:
            return 0
        return min(job.most_tokens - len(job.tokens) for job in self.active)

    def cells_active(self) -> int:
        """Distinct cells of running jobs."""
        return self.cells.used_by([job.sequence for job in self.active if job.sequence != NO_SEQUENCE])

    # --- admission ----------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        while (job := self.queue.peek()) is not None:
            if not self._fits(job, self.active):
                victim = self._background_for(job)
                if victim is None:
                    return
                self._preempt(victim)
                continue
            self.queue.remove(job)
            self.active.append(job)

    def _fits(self, job: Job, active: Iterable[Job]) -> bool:
        running = list(active)
        if not running:
            return True
        wanted = sum(self._soon(other) for other in [*running, job])
        return len(running) < self.limits.active and wanted <= self.limits.cells

    def _soon(self, job: Job) -> int:
        return min(job.most_tokens, len(job.tokens) + self.limits.growth_tokens)

    def _background_for(self, job: Job) -> Job | None:
        if job.priority == "background":
            return None
        return next((other for other in reversed(self.active) if other.priority == "background"), None)

    def _ranked(self) -> list[Job]:
        """Active jobs, the first in the right first: interactive before background, then by admission."""
        return sorted(self.active, key=lambda job: job.priority == "background")

    # --- rows ---------------------------------------------------------------------------------------------------

    def _produce(self, producers: list[Job], batch: Batch) -> None:
        for job in producers:
            if job.sequence != NO_SEQUENCE and self._room(job, 1, batch):
                self._place(job, 1, batch)
                batch.decode_tokens += 1

    def _read_prompts(self, readers: list[Job], batch: Batch, now_s: float) -> None:
        budget = self.limits.step_rows
        crowded = len(self.active) > _CROWD and 2 * len(readers) >= len(self.active)
        together = round(_TOGETHER * len(self.active)) if crowded else 1
        sharing: list[Job] = []
        for job in readers:
            if len(sharing) < together and not self._waits(job, sharing):
                sharing.append(job)
        for place, job in enumerate(sharing):
            budget -= self._read(job, -(-budget // (len(sharing) - place)), batch, now_s)
        for job in readers:
            if budget > 0 and not self._waits(job, [placed for placed, _ in batch.parts]):
                budget -= self._read(job, budget, batch, now_s)

    def _read(self, job: Job, budget: int, batch: Batch, now_s: float) -> int:
        """Plans rows of the job's prompt; returns how many."""
        if job not in self.active or any(placed is job for placed, _ in batch.parts):
            return 0
        if job.sequence == NO_SEQUENCE:
            self._begin(job)
            if job.begun_s is None:
                job.begun_s = now_s
        rows = min(job.pending, budget)
        if not self._room(job, rows, batch):
            rows = min(rows, self.cells.free)
        if rows:
            self._place(job, rows, batch)
            batch.prefill_tokens += rows
        return rows

    def _waits(self, job: Job, reading: list[Job]) -> bool:
        """Whether one of those who are reading will soon have more of this one's first tokens than anyone has."""
        if job.sequence != NO_SEQUENCE:
            return False
        coming = [common_length(other.tokens, job.tokens) for other in reading if other.domain == job.domain]
        wanted = max(coming, default=0) - _WORTH_WAITING
        return wanted >= 0 and wanted >= self._match(job.domain, job.tokens)[1]

    def _place(self, job: Job, rows: int, batch: Batch) -> None:
        end = job.computed + rows
        self.cells.extend(job.sequence, rows)
        batch.tokens += job.tokens[job.computed : end]
        batch.positions += range(job.computed, end)
        batch.sequences += [job.sequence] * rows
        batch.parts.append((job, rows))
        if end == len(job.tokens):
            batch.sampled.append((len(batch.tokens) - 1, job))

    def _room(self, job: Job, rows: int, batch: Batch) -> bool:
        """Tries to free so many cells, at the cost of kept prefixes and of jobs that rank lower and have no row yet."""
        while self.cells.free < rows:
            if not (self._evict() or self._preempt_lower(job, batch)):
                return False
        return True

    def _evict(self, spare: int = NO_SEQUENCE) -> bool:
        """Drops the least recently used prefix, first one that gives cells back."""
        kept = [sequence for sequence in self.prefixes.sequences if sequence != spare]
        if not kept:
            return False
        self._forget(next((one for one in kept if self.cells.gained_by_dropping(one)), kept[0]))
        return True

    def _forget(self, sequence: int) -> None:
        self.prefixes.drop(sequence)
        self._release(sequence)

    def _preempt_lower(self, job: Job, batch: Batch) -> bool:
        placed = {id(other) for other, _ in batch.parts}
        for other in reversed(self._ranked()):
            if other is job:
                return False
            if id(other) not in placed and other.sequence != NO_SEQUENCE:
                self._preempt(other)
                return True
        return False

    def _preempt(self, job: Job) -> None:
        """Back to the queue. What it read is a kept prefix: found again when it comes back, if the cells allow."""
        self.active.remove(job)
        self._let_go(job)
        self.queue.put_back(job)
        self.counters.preemptions += 1

    # --- sequences ----------------------------------------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        """Gives the job a sequence, with the longest known prefix in it. The last token is always decoded again."""
        source, length = self._match(job.domain, job.tokens)
        kept = source in self.prefixes.sequences
        if kept:
            self.prefixes.use(source)
        if kept and (self.cells.length(source) == length or not self._can_free_sequence(source)):
            self.prefixes.drop(source)
            self.cells.trim(source, length)
            self._memory.trim(source, length)
            job.sequence = source
        else:
            job.sequence = self._free_sequence(spare=source)
            if length:
                self.cells.copy(source, job.sequence, length)
                self._memory.copy(source, job.sequence, length)
        job.computed = length
        if job.begun_s is None:
            job.cached_tokens = length
            self.counters.prompt_tokens += job.prompt_tokens
            self.counters.cached_tokens += length
            self.counters.prefix_hits += length > 0

    def _match(self, domain: str, tokens: list[int]) -> tuple[int, int]:
        """The sequence that has most of these tokens, kept or running, and how many; never all of them."""
        prefix, longest = self.prefixes.match(domain, tokens)
        source = prefix.sequence if prefix else NO_SEQUENCE
        for job in self.active:
            if job.domain == domain and job.computed > longest:
                common = min(job.computed, common_length(job.tokens, tokens))
                if common > longest:
                    source, longest = job.sequence, common
        return source, min(longest, len(tokens) - 1)

    def _can_free_sequence(self, spare: int) -> bool:
        return bool(self._free_sequences) or any(sequence != spare for sequence in self.prefixes.sequences)

    def _free_sequence(self, spare: int) -> int:
        """An empty sequence. There is one: running jobs are fewer than sequences, all others are free or kept."""
        if not self._free_sequences:
            self._evict(spare)
        return self._free_sequences.pop()

    def _let_go(self, job: Job) -> None:
        sequence, job.sequence = job.sequence, NO_SEQUENCE
        computed, job.computed = job.computed, 0
        if sequence == NO_SEQUENCE:
            return
        if computed == 0:
            self._release(sequence)
            return
        for needless in self.prefixes.keep(Prefix(sequence, job.domain, job.tokens[:computed])):
            self._release(needless)

    def _release(self, sequence: int) -> None:
        self.cells.trim(sequence, 0)
        self._memory.trim(sequence, 0)
        self._free_sequences.append(sequence)


def _produces(job: Job) -> bool:
    """One token is to be decoded, and then the next is sampled."""
    return job.sequence != NO_SEQUENCE and job.pending == 1
