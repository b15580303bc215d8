"""The next token out of a row of logits.

Greedy (temperature 0 or not given: a draft gains nothing from chance) is one argmax. Otherwise: penalties, then the
`TOP_K` largest (or as many as were asked for), then temperature, then top-p; first cutting to k makes the rest cheap.

Log-probability, entropy and margin are those of the model's own distribution, at temperature 1 and before any penalty:
they say how sure the model is, whatever the sampling.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gateway.inference.request import Sampling

TOP_K = 40
"""llama.cpp's own default."""
_NEGLIGIBLE = 20.0
"""A token whose logit is so many temperatures under the best has under e⁻²⁰ of its probability."""
_EXTREME = 100.0
"""Where temperature and penalties stop making a difference, and float32 still has room."""
_SAFE_EXPONENT = 60.0
"""Up to here float32 has room for the sum of what these logits' exponentials are, and for what is small beside it."""
_SEEDS = 2**64
_ALL = 2**31
"""More tokens than any vocabulary has: what a top-k of 0 or -1 asks for."""
NO_TOKEN = -1
"""Chosen when the grammar allows none: the answer ends."""

Logits = npt.NDArray[np.float32]


class Choice(NamedTuple):
    """A sampled token, and how sure the model was."""

    token: int
    logprob: float
    """Natural, ≤ 0."""
    entropy: float
    """Of the whole distribution, in nats."""
    margin: float = 0.0
    """By how much the likeliest token's probability exceeds the second's, 0..1."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens and their log-probabilities, as many as were asked for."""


class Spread(NamedTuple):
    """How the probability of a row is spread over the tokens."""

    top: int
    """The likeliest token; of equals the first."""
    log_total: float
    """Natural logarithm of the sum of all logits' exponentials."""
    mean: float
    """Of the logits, each by its probability."""
    margin: float
    """See `Choice`."""


class Surprise:
    """Spreads, by numpy, with buffers kept between calls. Where llama.cpp has a faster way, see `model`."""

    def __init__(self, vocabulary: int) -> None:
        self._weights = np.empty(vocabulary, dtype=np.float32)
        self._ones = np.ones(vocabulary, dtype=np.float32)

    def __call__(self, row: Logits) -> Spread:
        top = int(row.argmax())
        moved = float(row[top]) if abs(row[top]) > _SAFE_EXPONENT else 0.0
        if moved:
            row = row - row[top]
        weights = np.exp(row, out=self._weights)
        total = float(np.dot(weights, self._ones))  # in a third of the time of `sum`
        mean = float(np.dot(weights, row)) / total
        largest = float(weights[top])
        weights[top] = 0.0
        margin = max(0.0, largest - float(weights.max())) / total
        return Spread(top, moved + math.log(total), moved + mean, margin)


def _likeliest(row: Logits, count: int, log_total: float) -> tuple[tuple[int, float], ...]:
    count = min(count, len(row))
    found = np.argpartition(row, -count)[-count:]
    found = found[np.argsort(-row[found], kind="stable")]
    return tuple((int(token), min(0.0, float(row[token]) - log_total)) for token in found)


class Held(Protocol):
    """A grammar that the answer is held to."""

    def allows(self, token: int) -> bool:
        """The token may be next."""

    def restrict(self, row: Logits) -> Logits | None:
        """The logits with all others at minus infinity; None when no token may be next."""

    def accept(self, token: int) -> None:
        """The token is next."""


class Sampler:
    """Samples one answer. With a seed, the same logits give the same tokens."""

    def __init__(self, sampling: Sampling, spread: Callable[[Logits], Spread], grammar: Held | None = None) -> None:
        self._grammar = grammar
        top_k = TOP_K if sampling.top_k is None else sampling.top_k
        self._top_k = top_k if top_k > 0 else _ALL
        self._temperature = min(sampling.temperature or 0.0, _EXTREME)
        self._top_p = 1.0 if sampling.top_p is None else sampling.top_p
        self._presence = max(-_EXTREME, min(sampling.presence_penalty or 0.0, _EXTREME))
        self._frequency = max(-_EXTREME, min(sampling.frequency_penalty or 0.0, _EXTREME))
        self._penalised = bool(self._presence or self._frequency)
        self._spread = spread
        self._tops = sampling.top_logprobs or 0
        self.tells = sampling.top_logprobs is not None
        """The client wants to know log-probabilities."""
        self._counts: Counter[int] = Counter()
        seed = None if sampling.seed is None else sampling.seed % _SEEDS
        self._random = np.random.default_rng(seed) if self._temperature > 0 else None

    def choose(self, row: Logits) -> Choice:
        """The next token. `row` is only read."""
        spread = self._spread(row)
        if self._penalised and self._counts:
            weighed = self._with_penalties(row)
            token = self._draw(weighed, float(weighed.max()), int(weighed.argmax()))
        else:
            weighed = row
            token = self._draw(row, float(row[spread.top]), spread.top)
        if self._grammar is not None:
            token = self._held(self._grammar, weighed, token)
            if token == NO_TOKEN:
                return Choice(NO_TOKEN, 0.0, 0.0)
        if self._penalised:
            self._counts[token] += 1
        return Choice(
            token,
            logprob=min(0.0, float(row[token]) - spread.log_total),
            entropy=max(0.0, spread.log_total - spread.mean),
            margin=spread.margin,
            top=_likeliest(row, self._tops, spread.log_total) if self._tops else (),
        )

    def _held(self, grammar: Held, row: Logits, token: int) -> int:
        """The token, or another that the grammar allows."""
        if not grammar.allows(token):
            allowed = grammar.restrict(row)
            if allowed is None:
                return NO_TOKEN
            token = self._draw(allowed, float(allowed.max()), int(allowed.argmax()))
        grammar.accept(token)
        return token

    def _with_penalties(self, row: Logits) -> Logits:
        penalised = row.copy()
        tokens = np.fromiter(self._counts.keys(), dtype=np.int64, count=len(self._counts))
        counts = np.fromiter(self._counts.values(), dtype=np.float32, count=len(self._counts))
        penalised[tokens] -= np.float32(self._presence) + np.float32(self._frequency) * counts
        return penalised

    def _draw(self, row: Logits, best: float, top: int) -> int:
        if self._random is None:
            return top
        candidates = np.flatnonzero(row >= best - _NEGLIGIBLE * self._temperature)
        if len(candidates) > self._top_k:
            candidates = candidates[np.argpartition(row[candidates], -self._top_k)[-self._top_k :]]
        candidates = candidates[np.argsort(-row[candidates], kind="stable")]
        weights = np.exp((row[candidates].astype(np.float64) - best) / self._temperature)
        sums = np.cumsum(weights)
        sums /= sums[-1]
        kept = int(np.searchsorted(sums, self._top_p)) + 1
        drawn = self._random.random() * sums[min(kept, len(sums)) - 1]
        return int(candidates[min(int(np.searchsorted(sums, drawn, side="right")), len(candidates) - 1)])
