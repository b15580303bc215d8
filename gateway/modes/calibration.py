"""Learns from verdicts how far to trust the edge: logistic regression on the features of `confidence`.

Cross-validated: every figure that is told comes from answers that the model which judged them had not seen. With few
pairs the regression is held back by a penalty on its weights (ridge), so that ten features cannot learn thirty answers
by heart. numpy only: the gateway itself never imports this.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.modes.confidence import FEATURES, Calibration, Point

LEAST_PAIRS = 40
LEAST_OF_A_KIND = 10
_FOLDS = 5
_PENALTY = 3.0
_STEPS = 50
_POINTS = 64
"""Of the curve of risk over coverage."""
_DOUBT = 0.1
"""How likely the true share of wrong answers is over the bound."""
_COVERAGES = (1.0, 0.8, 0.6, 0.4, 0.2)

Floats = npt.NDArray[np.float64]


class Pair(msgspec.Struct, frozen=True):
    """An answer's features, and whether it was good."""

    features: tuple[float, ...]
    good: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What calibrating has found. `risks`: for each share of answers kept, the surest first, how many are bad."""

    calibration: Calibration
    good_share: float
    brier_of_share: float
    """The Brier score of who always says `good_share`: what the calibrated one has to be under."""
    risks: tuple[tuple[float, float], ...]


class _Attempt(msgspec.Struct, frozen=True):
    role: str = ""
    features: tuple[float, ...] | None = None


class _Line(msgspec.Struct, frozen=True):
    """A pair, or a line of the gateway's log: its draft's features, and the verdict."""

    features: tuple[float, ...] | None = None
    good: bool | None = None
    draft: Any = None
    attempts: tuple[_Attempt, ...] = ()


def read_pairs(lines: Iterable[bytes]) -> tuple[list[Pair], int]:
    """The pairs, and how many lines held none. A draft is good when the final confirmed it."""
    decoder = msgspec.json.Decoder(_Line)
    pairs: list[Pair] = []
    without = 0
    for line in lines:
        pair = None
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pair = _pair(decoder.decode(line))
        if pair is None or len(pair.features) != len(FEATURES) or not np.isfinite(pair.features).all():
            without += 1
        else:
            pairs.append(pair)
    return pairs, without


def _pair(line: _Line) -> Pair | None:
    if line.features is not None and line.good is not None:
        return Pair(line.features, line.good)
    found = next((one.features for one in line.attempts if one.role == "draft" and one.features is not None), None)
    if found is None or line.draft not in {"confirmed", "revised", "replaced"}:
        return None
    return Pair(found, line.draft == "confirmed")


def calibrate(pairs: Sequence[Pair], *, seed: int = 0) -> Report:
    """Fits, and tells how well it does. Raises ValueError, with what is missing, when there is too little to learn."""
    good = np.array([pair.good for pair in pairs], dtype=np.float64)
    kinds = int(good.sum()), int(len(good) - good.sum())
    if len(pairs) < LEAST_PAIRS or min(kinds) < LEAST_OF_A_KIND:
        raise ValueError(
            f"there are {kinds[0]} good and {kinds[1]} bad answers; {LEAST_PAIRS} are needed, {LEAST_OF_A_KIND} of each"
        )
    values = np.array([pair.features for pair in pairs], dtype=np.float64)
    judged = _cross_validated(values, good, np.random.default_rng(seed))
    centre, scale, weights, intercept = _fit(values, good)
    share = float(good.mean())
    calibration = Calibration(
        features=FEATURES,
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(weights.tolist()),
        intercept=intercept,
        pairs=len(pairs),
        auc=_auc(judged, good),
        brier=float(np.mean((judged - good) ** 2)),
        curve=_curve(judged, good),
    )
    return Report(calibration, share, share * (1 - share), _risks(judged, good))


def _cross_validated(values: Floats, good: Floats, random: np.random.Generator) -> Floats:
    """For each answer the estimate of a model that was fitted without it. Each fold has its share of good ones."""
    fold = np.empty(len(good), dtype=np.int64)
    for kind in (0.0, 1.0):
        members = random.permutation(np.flatnonzero(good == kind))
        fold[members] = np.arange(len(members)) % _FOLDS
    judged = np.empty(len(good))
    for number in range(_FOLDS):
        centre, scale, weights, intercept = _fit(values[fold != number], good[fold != number])
        judged[fold == number] = _logistic((values[fold == number] - centre) / scale @ weights + intercept)
    return judged


def _fit(values: Floats, good: Floats) -> tuple[Floats, Floats, Floats, float]:
    """Ridge-penalised logistic regression by Newton's method; the intercept is not penalised."""
    centre = values.mean(axis=0)
    scale = values.std(axis=0)
    scale[scale < 1e-9] = 1.0
    table = np.column_stack([np.ones(len(values)), (values - centre) / scale])
    penalty = np.full(table.shape[1], _PENALTY)
    penalty[0] = 0.0
    weights = np.zeros(table.shape[1])
    for _ in range(_STEPS):
        estimate = _logistic(table @ weights)
        slope = table.T @ (estimate - good) + penalty * weights
        certainty = np.maximum(estimate * (1 - estimate), 1e-9)
        step = np.linalg.solve(table.T @ (table * certainty[:, None]) + np.diag(penalty), slope)
        weights -= step
        if float(np.abs(step).max()) < 1e-8:
            break
    return centre, scale, weights[1:], float(weights[0])


def _logistic(values: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(values, -30.0, 30.0)))
    return found


def _auc(judged: Floats, good: Floats) -> float:
    """The share of pairs of a good and a bad answer in which the good one has the higher estimate; ties count half."""
    highs, lows = judged[good == 1.0], judged[good == 0.0]
    above = (highs[:, None] > lows[None, :]).sum() + 0.5 * (highs[:, None] == lows[None, :]).sum()
    return float(above / (len(highs) * len(lows)))


def _risks(judged: Floats, good: Floats) -> tuple[tuple[float, float], ...]:
    surest_first = good[np.argsort(-judged, kind="stable")]
    counts = [max(1, round(coverage * len(good))) for coverage in _COVERAGES]
    return tuple(
        (coverage, float(1.0 - surest_first[:count].mean())) for coverage, count in zip(_COVERAGES, counts, strict=True)
    )


def _curve(judged: Floats, good: Floats) -> tuple[Point, ...]:
    """Risk over coverage at thresholds that part the answers evenly."""
    points = []
    for threshold in np.unique(np.quantile(judged, np.linspace(0, 1, _POINTS), method="lower")):
        kept = good[judged >= threshold]
        bad = int(len(kept) - kept.sum())
        points.append(
            Point(
                threshold=float(threshold),
                coverage=len(kept) / len(good),
                error=bad / len(kept),
                most_error=most_error(bad, len(kept)),
            )
        )
    return tuple(points)


def most_error(bad: int, of: int) -> float:
    """The largest error rate with which so few bad answers are still seen in one of ten tries; exact, by bisection."""
    if bad >= of:
        return 1.0
    ways = np.array([math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) for k in range(bad + 1)])
    number = np.arange(bad + 1)
    low, high = bad / of, 1.0
    for _ in range(_STEPS):
        rate = (low + high) / 2
        seen = float(np.exp(ways + number * math.log(rate) + (of - number) * math.log1p(-rate)).sum())
        low, high = (rate, high) if seen > _DOUBT else (low, rate)
    return high
