"""One answer while it is produced: its sampler, its text, and when it ends."""

from __future__ import annotations

from typing import Literal

from gateway.edge.job import Job
from gateway.edge.protocol import Done, Token
from gateway.edge.sampling import Choice, Sampler
from gateway.edge.text import Telling, TextGate
from gateway.inference.events import TokenLogprob


class Answer:
    """Turns sampled tokens into frames. The token that ends an answer is neither text nor counted."""

    def __init__(self, *, owner: object, number: int, job: Job, sampler: Sampler, gate: TextGate) -> None:
        self.owner = owner
        self.number = number
        self.job = job
        self.sampler = sampler
        self._gate = gate
        self._told = Telling()
        self.finish_reason: Literal["stop", "length"] | None = None

    def take(self, choice: Choice, piece: bytes, said: TokenLogprob | None = None) -> Token:
        """The next token, which is one of the answer; the job has it already. `said`: what a client wants to know."""
        text = self._gate.feed(piece)
        if self._gate.stopped:
            self.finish_reason = "stop"
        elif self.job.produced >= self.job.max_tokens:
            self.finish_reason = "length"
            text += self._gate.finish()
        told = () if said is None else self._told.take(said, len(piece), text, ended=self.finish_reason == "length")
        return Token(self.number, text, (choice.logprob,), (choice.entropy,), (choice.margin,), told)

    def end(self) -> Token | None:
        """The model ended its answer. What was held back is text after all."""
        self.finish_reason = "stop"
        text, told = self._gate.finish(), self._told.rest()
        return Token(self.number, text, told=told) if text or told else None

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
