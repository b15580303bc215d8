"""The scheduler under every interleaving that Hypothesis finds, over a KV cache that is kept cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.edge.job import NO_SEQUENCE, Job
from gateway.edge.scheduler import Batch, Limits, Scheduler

MOST_PASSED_OVER = 2
"""Steps that may pass without the first in rank, where reading and producing take turns."""


@dataclass(eq=False)
class Cell:
    token: int
    domain: str


class UnifiedCache:
    """llama.cpp's unified KV cache: sequences that share cells; it never holds more of them than it has."""

    def __init__(self, cells: int) -> None:
        self.cells = cells
        self.sequences: dict[int, list[Cell]] = {}

    def trim(self, sequence: int, length: int) -> None:
        del self.sequences.setdefault(sequence, [])[length:]

    def copy(self, source: int, target: int, length: int) -> None:
        assert not self.sequences.get(target)
        assert len(self.sequences[source]) >= length
        self.sequences[target] = self.sequences[source][:length]

    def decode(self, batch: Batch) -> None:
        row = 0
        for job, rows in batch.parts:
            for _ in range(rows):
                held = self.sequences.setdefault(batch.sequences[row], [])
                assert batch.positions[row] == len(held)
                held.append(Cell(batch.tokens[row], job.domain))
                row += 1
        assert row == len(batch.tokens)
        assert self.used() <= self.cells

    def used(self) -> int:
        return len({id(cell) for held in self.sequences.values() for cell in held})


class Serving(RuleBasedStateMachine):
    """Jobs come, steps are made or aborted, jobs are cancelled, in any order."""

    @initialize(
        cells=st.integers(12, 60),
        active=st.integers(1, 4),
        spare=st.integers(0, 3),
        waiting=st.integers(1, 6),
        prefill=st.integers(1, 9),
        growth=st.integers(0, 12),
        turns=st.booleans(),
    )
    def start(self, cells, active, spare, waiting, prefill, growth, turns):
        limits = Limits(
            cells=cells,
            sequences=active + spare,
            active=active,
            waiting=waiting,
            step_rows=prefill,
            growth_tokens=growth,
            turns=turns,
        )
        self.memory = UnifiedCache(cells)
        self.scheduler = Scheduler(limits, self.memory)
        self.limits = limits
        self.alive: list[Job] = []
        self.refused: set[int] = set()
        self.number = 0
        self.first: Job | None = None
        self.passed_over = 0

    @rule(
        prompt=st.lists(st.integers(0, 2), min_size=1, max_size=30),
        max_tokens=st.integers(1, 20),
        tenant=st.sampled_from("abc"),
        priority=st.sampled_from(["interactive", "background"]),
        isolated=st.booleans(),
    )
    def submit(self, prompt, max_tokens, tenant, priority, isolated):
        self.number += 1
        room = self.limits.cells - len(prompt)
        if room < 1:
            return
        job = Job(
            key=(0, self.number),
            tokens=list(prompt),
            max_tokens=min(max_tokens, room),
            tenant=tenant,
            priority=priority,
            domain=f"tenant {tenant}" if isolated else "",
        )
        refused = self.scheduler.submit(job)
        self.alive.append(job)
        if refused is not None:
            self.alive.remove(refused)
            assert refused.begun_s is None or refused is not job

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 100))
    def cancel(self, which):
        job = self.alive.pop(which % len(self.alive))
        self.scheduler.cancel(job)
        assert job not in self.scheduler.active
        assert job not in list(self.scheduler.queue)

    @rule(token=st.integers(0, 2))
    def step(self, token):
        self.make_step(token)

    @rule()
    def aborted_step(self):
        batch = self.scheduler.plan(0.0)
        if batch is not None:
            before = {job.key: job.computed for job in self.scheduler.active}
            self.memory.decode(batch)
            self.scheduler.undo(batch)
            assert {job.key: job.computed for job in self.scheduler.active} == before

    def make_step(self, token: int) -> bool:
        batch = self.scheduler.plan(0.0)
        if batch is None:
            assert not self.alive
            return False
        assert 0 < len(batch.tokens) <= self.limits.rows
        assert batch.prefill_tokens <= self.limits.step_rows
        assert len({job.key for job, _ in batch.parts}) == len(batch.parts)
        first = min(self.scheduler.active, key=lambda job: job.priority == "background")
        placed = first in [job for job, _ in batch.parts]
        self.passed_over = 0 if placed else 1 + (self.passed_over if first is self.first else 0)
        self.first = first
        assert self.passed_over <= (MOST_PASSED_OVER if self.limits.turns else 0)
        self.memory.decode(batch)
        self.scheduler.commit(batch)
        for _, job in batch.sampled:
            self.scheduler.accept(job, token)
            if job.produced == job.max_tokens:
                self.scheduler.finish(job)
                self.alive.remove(job)
        return True

    @invariant()
    def everything_agrees(self):
        if not hasattr(self, "memory"):
            return
        scheduler, memory = self.scheduler, self.memory
        assert scheduler.cells.total - scheduler.cells.free == memory.used()
        assert len(scheduler.active) <= self.limits.active
        assert len(scheduler.queue) <= self.limits.waiting + self.limits.active
        assert set(scheduler.active) | set(scheduler.queue) == set(self.alive)
        running = [job for job in scheduler.active if job.sequence != NO_SEQUENCE]
        shared = {id(cell) for job in running for cell in memory.sequences.get(job.sequence, [])}
        assert len(shared) == scheduler.cells_active()
        for job in running:
            held = memory.sequences.get(job.sequence, [])
            assert [cell.token for cell in held] == job.tokens[: job.computed]
            assert {cell.domain for cell in held} <= {job.domain}
        sequences = [job.sequence for job in running] + scheduler.prefixes.sequences
        assert len(sequences) == len(set(sequences))
        assert {number for number, held in memory.sequences.items() if held} <= set(sequences)

    def teardown(self):
        """Whatever happened, every job that is left is answered in full, in bounded time."""
        if not hasattr(self, "memory"):
            return
        bound = 200 + 60 * len(self.alive) * self.limits.cells
        for _ in range(bound):
            if not self.make_step(1):
                return
            self.everything_agrees()
        raise AssertionError("jobs are left that nobody serves")


Serving.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestServing = Serving.TestCase
