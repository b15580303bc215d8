"""The formats that a model's weights can have, and which of those that were measured to keep.

A format with fewer bits is smaller and most often faster, and loses quality: how much depends on the model and on the
processor's kernels, so it is measured (`tuning`) on a text that is shipped with the gateway. Quality is told in two
figures, against the file that the others were made of: perplexity (how surprised the model is by the text), and
agreement (how often both find the same token the likeliest).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SOURCE = "source"
"""The file as it is."""
LADDER = ("f16", "q8_0", "q6_k", "q5_1", "q5_0", "q4_k_m", "q4_1", "q4_0", "iq4_nl")
"""From the most bits a weight to the fewest; names as llama.cpp's tools have them."""
TUNED = ("q8_0", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""What `tune` tries unless it is told otherwise."""
_PROMPT_TOKENS, _ANSWER_TOKENS = 500, 64
"""A usual draft: what speed is weighed by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One format, measured. Speeds in tokens a second, of one request alone; memory of the weights in bytes."""

    name: str
    prefill_rate: float
    decode_rate: float
    model_bytes: int
    perplexity: float
    agreement: float
    """0..1: share of positions at which it and the source find the same token the likeliest."""

    @property
    def draft_s(self) -> float:
        """Seconds of a usual draft: 500 tokens read, 64 produced."""
        return _PROMPT_TOKENS / self.prefill_rate + _ANSWER_TOKENS / self.decode_rate

    def loss(self, source: Measured) -> float:
        """How much larger its perplexity is than the source's: 0.05 is 5 %. Under 0 when it is smaller."""
        return self.perplexity / source.perplexity - 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The format to keep, and the faster ones that were rolled back because they lose too much."""

    kept: Measured
    rolled_back: tuple[Measured, ...]


def choose(measured: Sequence[Measured], most_loss: float) -> Choice:
    """The fastest that loses no more than `most_loss`. The first of `measured` is the source, and is always good."""
    source = measured[0]
    by_speed = sorted(measured, key=lambda one: one.draft_s)
    kept = next(one for one in by_speed if one is source or one.loss(source) <= most_loss)
    return Choice(kept, tuple(by_speed[: by_speed.index(kept)]))
