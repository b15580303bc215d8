"""How sure the edge was of an answer: features of its log-probabilities, and an estimate calibrated from verdicts.

Quantiles beat mean and sum, which are biased by length (Gupta et al., "Language Model Cascades: Token-Level
Uncertainty and Beyond", 2024); all are features, and a logistic regression weighs them (`calibration`). What it has
learnt holds for one model in one format. Without it there is no estimate: a number that means nothing is worse than
none.

No numpy here: this runs in the gateway, which starts without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
_QUANTILE_NAMES = ("q0", "q10", "q25", "q50", "q75", "q100")
FEATURES = (*_QUANTILE_NAMES, "mean", "sum", "log_length", "margin", "margin_q10", "repetition")
"""Of the tokens' natural log-probabilities; then mean and lowest tenth of the margins by which the likeliest token's
probability exceeded the second's; last the share of the text's word triples that came before."""
_LOW = 0.1
_WORDS = 3
_DIGITS = 4
"""What is kept of each: they stand in the log."""
_STEEPEST = 30.0
"""Where the logistic function is 0 or 1 in any figure that is shown."""


def features(logprobs: Sequence[float], margins: Sequence[float], text: str) -> tuple[float, ...] | None:
    """The features of one answer, in the order of `FEATURES`; None for an answer whose tokens are not known."""
    if not logprobs or not margins:
        return None
    ranked = sorted(logprobs)
    total = math.fsum(ranked)
    quantiles = (_quantile(ranked, share) for share in _QUANTILES)
    sureness = (math.fsum(margins) / len(margins), _quantile(sorted(margins), _LOW))
    found = (*quantiles, total / len(ranked), total, math.log(len(ranked)), *sureness, _repetition(text))
    return tuple(round(value, _DIGITS) for value in found)


def _quantile(ranked: Sequence[float], share: float) -> float:
    """Between two values, in proportion."""
    place = share * (len(ranked) - 1)
    lower = int(place)
    upper = min(lower + 1, len(ranked) - 1)
    return ranked[lower] + (place - lower) * (ranked[upper] - ranked[lower])


def _repetition(text: str) -> float:
    words = text.casefold().split()
    triples = [tuple(words[place : place + _WORDS]) for place in range(len(words) - _WORDS + 1)]
    return 1.0 - len(set(triples)) / len(triples) if triples else 0.0


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What happens when all answers stand whose estimate is at least `threshold`; cross-validated."""

    threshold: float
    coverage: float
    """The share of all answers that then stand."""
    error: float
    """The share of these that are not good, as it was seen."""
    most_error: float
    """The same, as large as it may be with so few seen: the 90 % bound (Clopper and Pearson, 1934)."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What was learnt for one model and format. Weights belong to features that are centred and scaled."""

    features: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    pairs: int
    auc: float
    """Area under the ROC curve, cross-validated: 0.5 knows nothing, 1 everything."""
    brier: float
    """Mean squared error of the estimate, cross-validated: 0 is best."""
    curve: tuple[Point, ...] = ()
    """From the lowest threshold, with which everything stands, to the highest; empty in files of older versions."""

    def estimate(self, values: Sequence[float]) -> float:
        """How likely such an answer is good, 0..1."""
        scaled = zip(self.weights, values, self.centre, self.scale, strict=True)
        logit = self.intercept + sum(weight * (value - centre) / scale for weight, value, centre, scale in scaled)
        return 1.0 / (1.0 + math.exp(-max(-_STEEPEST, min(logit, _STEEPEST))))

    def threshold(self, target_error: float) -> float | None:
        """The least estimate from which on at most `target_error` of the answers are not good, as far as was seen.

        Infinite where no threshold is good enough; None where the curve was never drawn.
        """
        if not self.curve:
            return None
        return min((point.threshold for point in self.curve if point.most_error <= target_error), default=math.inf)


def calibration_file(state_dir: Path, fingerprint: str) -> Path:
    """Where the calibration of a model in a format is kept."""
    return state_dir / "models" / f"{fingerprint}.confidence"


def read_calibration(path: Path) -> Calibration | None:
    """What is kept there; None when there is nothing, or nothing that can be used."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    sizes = {len(found.centre), len(found.scale), len(found.weights)}
    usable = found.features == FEATURES and sizes == {len(FEATURES)} and 0 not in found.scale
    return found if usable else None


class Confidence:
    """The estimate for the model that the edge has loaded, read again when it is calibrated anew."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._read: tuple[str, int] | None = None
        self._calibration: Calibration | None = None

    def estimate(self, fingerprint: str, values: Sequence[float] | None) -> float | None:
        """0..1; None when this model is not calibrated, or there are no features."""
        found = None if values is None else self._calibrated(fingerprint)
        return None if found is None or values is None else found.estimate(values)

    def threshold(self, fingerprint: str, target_error: float) -> float | None:
        """The least estimate with which an answer may stand, if no more than `target_error` are to be wrong."""
        found = self._calibrated(fingerprint)
        return None if found is None else found.threshold(target_error)

    def _calibrated(self, fingerprint: str) -> Calibration | None:
        if not fingerprint:
            return None
        path = calibration_file(self._state_dir, fingerprint)
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return None
        if self._read != (fingerprint, changed):
            self._read, self._calibration = (fingerprint, changed), read_calibration(path)
        return self._calibration
