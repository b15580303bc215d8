"""One answer while it is produced: its sampler, its text, and when it ends."""

from __future__ import annotations

from typing import Literal

from gateway.edge.job import Job
from gateway.edge.protocol import Done, Token
from gateway.edge.sampling import Choice, Sampler
from gateway.edge.text import TextGate


class Answer:
    """Turns sampled tokens into frames. The token that ends an answer is neither text nor counted."""

    def __init__(self, *, owner: object, number: int, job: Job, sampler: Sampler, gate: TextGate) -> None:
        self.owner = owner
        self.number = number
        self.job = job
        self.sampler = sampler
        self._gate = gate
        self.finish_reason: Literal["stop", "length"] | None = None

    def take(self, choice: Choice, piece: bytes) -> Token:
        """The next token, which is one of the answer; the job has it already."""
        text = self._gate.feed(piece)
        if self._gate.stopped:
            self.finish_reason = "stop"
        elif self.job.produced >= self.job.max_tokens:
            self.finish_reason = "length"
            text += self._gate.finish()
        return Token(self.number, text, (choice.logprob,), (choice.entropy,))

    def end(self) -> Token | None:
        """The model ended its answer. What was held back is text after all."""
        self.finish_reason = "stop"
        text = self._gate.finish()
        return Token(self.number, text) if text else None

    def done(self, now_s: float) -> Done:
        """The last frame; `finish_reason` is known."""
        job = self.job
        begun = now_s if job.begun_s is None else job.begun_s
        first = now_s if job.first_token_s is None else job.first_token_s
        return Done(
            id=self.number,
            finish_reason=self.finish_reason or "stop",
            prompt_tokens=job.prompt_tokens,
            cached_tokens=job.cached_tokens,
            completion_tokens=job.produced,
            queue_s=begun - job.arrived_s,
            prefill_s=first - begun,
            decode_s=now_s - first,
        )
