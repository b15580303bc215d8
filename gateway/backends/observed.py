"""What deployments did lately, as predictions for the next request. Pure but for the clock that it is given.

For each deployment and each of a few lengths of prompts: the time to the first token and the time for each further one,
as moving averages that rise at once and fall slowly (as "peak EWMA" in Finagle's load balancer does: a slow answer is
news, a quick one may be luck). A deployment that nobody asks drifts back to what policy expects of it, or else to the
best that it was seen to do, so that it is tried again. A backend reads prompts before it answers: what was measured
with some prompts waiting there is scaled to those that wait now.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from gateway.backends.quantile import Quantile
from gateway.inference.prediction import Prediction

_LENGTHS = (256, 1_024, 4_096, 16_384)
"""Prompt tokens up to which prompts are of one kind; longer ones are the last kind."""
_RISE, _FALL, _SLOW = 0.5, 0.15, 0.05
"""Weight of a new value over the average, under it, and in averages that only say what is usual."""
_HALF_LIFE_S = 20.0
"""After which half of the distance to what is expected is gone, while nobody asks."""
_REFRESH_S = 0.25
_SOME_TOKENS = 1_000.0
"""Taken for a prompt's length where nothing was measured."""
_LEAST_SCALE, _MOST_SCALE = 0.2, 20.0


@dataclass(slots=True)
class _Average:
    """A value that rises at once and falls slowly, and the least that it was."""

    value: float
    least: float
    load: float
    """Prompt tokens that usually waited there when it was measured."""
    size: float
    """Prompt tokens of those that it was measured with, usually."""
    at: float

    def add(self, value: float, load: float, size: float, now: float) -> None:
        self.value += (_RISE if value > self.value else _FALL) * (value - self.value)
        self.least = min(value, self.least + _SLOW * (value - self.least))
        self.load += _FALL * (load - self.load)
        self.size += _FALL * (size - self.size)
        self.at = now

    def scale(self, load: float) -> float:
        """How much longer it takes with `load` tokens waiting than with what waited when it was measured."""
        return _bounded((self.size + load) / (self.size + self.load))

    def now(self, now: float, expected: float | None) -> float:
        """The value, on its way back to what is expected since it was last measured."""
        rest = min(self.value, self.least if expected is None else expected)
        left = math.pow(0.5, max(0.0, now - self.at) / _HALF_LIFE_S)
        return rest + (self.value - rest) * left


@dataclass(slots=True)
class _Deployment:
    first_token: dict[int, _Average] = field(default_factory=dict)
    """By the place of the prompt's length in `_LENGTHS`."""
    per_token: _Average | None = None
    output_tokens: float | None = None
    in_flight_tokens: int = 0
    waits: dict[tuple[int, bool], Quantile] = field(default_factory=dict)
    """By the prompt's kind, and whether it is streamed: how long it takes until there is something to show."""


class Begun(msgspec.Struct):
    """An attempt that is under way."""

    deployment: str
    prompt_tokens: int
    in_flight_tokens: int
    """Of others, waiting there when it began."""
    at: float
    waits: bool = True
    """Its first token is not there yet."""
    stream: bool = True
    """Whether its first token can be seen: else the whole answer comes at once."""


class Observed:
    """Takes the times of attempts, gives predictions. One for each worker.

    Args:
        clock: seconds that only grow, as `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deployments: dict[str, _Deployment] = {}
        self._expected: Mapping[str, Prediction] = {}
        self._made: dict[int, tuple[float, dict[str, Prediction]]] = {}

    def expect(self, expected: Mapping[str, Prediction]) -> None:
        """What policy says of deployments: the prediction until there are measurements."""
        if expected is not self._expected:
            self._expected = expected
            self._made.clear()

    def begun(self, deployment: str, prompt_tokens: int, *, stream: bool = True) -> Begun:
        """An attempt begins."""
        found = self._deployments.setdefault(deployment, _Deployment())
        attempt = Begun(deployment, prompt_tokens, found.in_flight_tokens, self._clock(), stream=stream)
        found.in_flight_tokens += prompt_tokens
        self._renew(deployment)
        return attempt

    def first_token(self, attempt: Begun) -> None:
        """Its first token is there; of an answer that comes at once, all of it."""
        self._read(attempt)
        found, taken_s = self._deployments[attempt.deployment], self._clock() - attempt.at
        self._quantile(found, attempt).add(taken_s)
        if attempt.stream:
            self._add_first_token(found, attempt, taken_s)
            self._renew(attempt.deployment)

    def _add_first_token(self, found: _Deployment, attempt: Begun, taken_s: float) -> None:
        now, kind = self._clock(), bisect_left(_LENGTHS, attempt.prompt_tokens)
        average, load, size = found.first_token.get(kind), attempt.in_flight_tokens, max(1, attempt.prompt_tokens)
        if average is None:
            found.first_token[kind] = _Average(taken_s, taken_s, load, size, now)
        else:
            average.add(taken_s, load, size, now)

    def _never_came(self, found: _Deployment, attempt: Begun) -> None:
        """It ended without a first token. That it would have taken longer than this is news if that is long."""
        taken_s, quantile = self._clock() - attempt.at, self._quantile(found, attempt)
        usual_s = quantile.at(0.5)
        if usual_s is not None and taken_s > usual_s:
            quantile.add(taken_s)
        average = found.first_token.get(bisect_left(_LENGTHS, attempt.prompt_tokens))
        if attempt.stream and average is not None and taken_s > average.value:
            self._add_first_token(found, attempt, taken_s)

    @staticmethod
    def _quantile(found: _Deployment, attempt: Begun) -> Quantile:
        key = (bisect_left(_LENGTHS, attempt.prompt_tokens), attempt.stream)
        return found.waits.get(key) or found.waits.setdefault(key, Quantile())

    def ended(self, attempt: Begun, *, per_token_s: float | None, output_tokens: int | None) -> None:
        """It is over, however that came; None for what was not measured."""
        found, now = self._deployments[attempt.deployment], self._clock()
        if attempt.waits:
            self._never_came(found, attempt)
        self._read(attempt)
        if per_token_s is not None:
            if found.per_token is None:
                found.per_token = _Average(per_token_s, per_token_s, 0.0, 1.0, now)
            else:
                found.per_token.add(per_token_s, 0.0, 1.0, now)
        if output_tokens:
            usual = found.output_tokens
            found.output_tokens = output_tokens if usual is None else usual + _SLOW * (output_tokens - usual)
        self._renew(attempt.deployment)

    def _read(self, attempt: Begun) -> None:
        """Its prompt waits no more."""
        if attempt.waits:
            attempt.waits = False
            found = self._deployments[attempt.deployment]
            found.in_flight_tokens = max(0, found.in_flight_tokens - attempt.prompt_tokens)

    def usual_s(self, deployment: str, prompt_tokens: int, *, stream: bool, share: float) -> float | None:
        """How long it takes at most, in `share` of the cases, until there is something to show; None: not known yet."""
        found = self._deployments.get(deployment)
        quantile = None if found is None else found.waits.get((bisect_left(_LENGTHS, prompt_tokens), stream))
        return None if quantile is None else quantile.at(share)

    def expected_first_token_s(self, deployment: str) -> float | None:
        """What policy says of it."""
        expected = self._expected.get(deployment)
        return None if expected is None else expected.first_token_s

    def predictions(self, prompt_tokens: int) -> Mapping[str, Prediction]:
        """For a prompt of this length, by deployment. The mapping never changes; a newer one takes its place."""
        kind, now = bisect_left(_LENGTHS, prompt_tokens), self._clock()
        made = self._made.get(kind)
        if made is None or now - made[0] > _REFRESH_S:
            names = self._deployments.keys() | self._expected.keys()
            found = {name: predicted for name in names if (predicted := self._predict(name, kind, now))}
            made = self._made[kind] = (now, found)
        return made[1]

    def _renew(self, name: str) -> None:
        """One deployment's numbers are others now; the rest of what was made stays."""
        for kind, (at, found) in self._made.items():
            predicted = self._predict(name, kind, self._clock())
            if predicted is not None:
                self._made[kind] = (at, {**found, name: predicted})

    def _predict(self, name: str, kind: int, now: float) -> Prediction | None:
        expected, found = self._expected.get(name), self._deployments.get(name)
        average = None if found is None else _nearest(found.first_token, kind)
        if found is None or average is None:
            if expected is None or found is None:
                return expected
            first_s = expected.first_token_s * _bounded((_SOME_TOKENS + found.in_flight_tokens) / _SOME_TOKENS)
        else:
            first_s = average.now(now, None if expected is None else expected.first_token_s)
            first_s *= average.scale(found.in_flight_tokens)
        per_s = expected.per_token_s if expected is not None else 0.0
        if found.per_token is not None:
            per_s = found.per_token.now(now, None if expected is None else per_s)
        return Prediction(
            first_token_s=first_s,
            per_token_s=per_s,
            in_flight_tokens=found.in_flight_tokens,
            output_tokens=found.output_tokens,
        )


def _nearest(averages: Mapping[int, _Average], kind: int) -> _Average | None:
    """The average of this kind of prompt, else of the kind that is nearest in length."""
    return averages[min(averages, key=lambda other: abs(other - kind))] if averages else None


def _bounded(scale: float) -> float:
    return min(_MOST_SCALE, max(_LEAST_SCALE, scale))
