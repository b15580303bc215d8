"""What the decode loop counts and times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.edge.protocol import Load, Stats
from gateway.edge.scheduler import Batch, Scheduler

_MEMORY = 0.95
"""How much of what was known stays after another full prefill step: the last 20 count."""


class Sizes(Protocol):
    """What a model takes in memory, in bytes."""

    @property
    def model_bytes(self) -> int:
        """Of the weights."""

    @property
    def kv_bytes(self) -> int:
        """Of the KV cache."""


@dataclass(slots=True)
class Measurement:
    """Counters since the start, and decaying means of speed. Times in seconds."""

    requests: int = 0
    finished: int = 0
    cancelled: int = 0
    refused: int = 0
    steps: int = 0
    rows: int = 0
    prefill_tokens: int = 0
    prefill_s: float = 0.0
    decode_tokens: int = 0
    decode_s: float = 0.0
    queue_s: float = 0.0
    turn_s: float = 0.0
    _recent_tokens: float = 0.0
    _recent_s: float = 0.0
    _step_s: float = 0.0

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens a second in recent steps that read any, all else that they did included; 0: unknown."""
        return self._recent_tokens / self._recent_s if self._recent_s else 0.0

    def expect(self, prefill_rate: float) -> None:
        """Counts as one step at this rate."""
        if prefill_rate > 0:
            self._recent_tokens, self._recent_s = prefill_rate, 1.0

    def step(self, batch: Batch, seconds: float) -> None:
        """One step. In a mixed one each row is taken to cost the same."""
        rows = len(batch.tokens)
        self.steps += 1
        self.rows += rows
        self.prefill_tokens += batch.prefill_tokens
        self.decode_tokens += batch.decode_tokens
        reading_s = seconds * batch.prefill_tokens / rows
        self.prefill_s += reading_s
        self.decode_s += seconds - reading_s
        self._step_s = seconds if not self._step_s else _MEMORY * self._step_s + (1 - _MEMORY) * seconds
        if batch.prefill_tokens:
            self._recent_tokens = self._recent_tokens * _MEMORY + batch.prefill_tokens
            self._recent_s = self._recent_s * _MEMORY + seconds

    def load(self, scheduler: Scheduler) -> Load:
        """What a prediction of TTFT needs now."""
        counters = scheduler.counters
        return Load(
            prefill_rate=self.prefill_rate,
            queued_tokens=scheduler.queued_tokens(),
            wait_s=scheduler.steps_until_place() * self._step_s,
            hit_share=counters.cached_tokens / counters.prompt_tokens if counters.prompt_tokens else 0.0,
        )

    def stats(self, number: int, scheduler: Scheduler, sizes: Sizes) -> Stats:
        """All of it, with the gauges of this moment; `rss_bytes` is for the process to add."""
        counters = scheduler.counters
        return Stats(
            id=number,
            waiting=len(scheduler.queue),
            active=len(scheduler.active),
            cells=scheduler.cells.total,
            cells_used=scheduler.cells.total - scheduler.cells.free,
            cells_active=scheduler.cells_active(),
            kept_prefixes=len(scheduler.prefixes),
            requests=self.requests,
            finished=self.finished,
            cancelled=self.cancelled,
            refused=self.refused,
            steps=self.steps,
            rows=self.rows,
            prompt_tokens=counters.prompt_tokens,
            cached_tokens=counters.cached_tokens,
            prefix_hits=counters.prefix_hits,
            preemptions=counters.preemptions,
            prefill_tokens=self.prefill_tokens,
            prefill_s=self.prefill_s,
            decode_tokens=self.decode_tokens,
            decode_s=self.decode_s,
            loop_s=max(0.0, self.turn_s - self.prefill_s - self.decode_s),
            queue_s=self.queue_s,
            prefill_rate=self.prefill_rate,
            model_bytes=sizes.model_bytes,
            kv_bytes=sizes.kv_bytes,
        )
