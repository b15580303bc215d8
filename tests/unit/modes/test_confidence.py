import json
import os

import msgspec
import numpy as np
import pytest

from gateway.modes.calibration import LEAST_PAIRS, Pair, calibrate, most_error, read_pairs
from gateway.modes.confidence import FEATURES, Confidence, calibration_file, features, read_calibration

PAIR = [-0.1] * len(FEATURES)


def pairs(count: int, *, telling: float, seed: int = 1) -> list[Pair]:
    """Answers of which one feature tells, as clearly as `telling` says, whether they are good."""
    random = np.random.default_rng(seed)
    good = random.random(count) < 0.6
    values = random.normal(size=(count, len(FEATURES)))
    values[:, 1] += telling * good
    return [Pair(tuple(row), bool(one)) for row, one in zip(values.tolist(), good, strict=True)]


def test_features_are_those_of_the_numbers():
    """Quantiles between values in proportion, mean, sum, length, margins, and the share of repeated word triples."""
    logprobs, margins = [-4.0, -1.0, -2.0, -3.0, 0.0], [0.5, 0.1, 0.2, 0.3, 0.9]
    found = dict(zip(FEATURES, features(logprobs, margins, "a b c d"), strict=True))
    assert (found["q0"], found["q25"], found["q50"], found["q100"]) == (-4.0, -3.0, -2.0, 0.0)
    assert found["q10"] == pytest.approx(-3.6)
    assert (found["mean"], found["sum"]) == (-2.0, -10.0)
    assert found["log_length"] == pytest.approx(np.log(5), abs=1e-4)
    assert found["margin"] == pytest.approx(0.4)
    assert found["margin_q10"] == pytest.approx(0.14)
    assert found["repetition"] == 0.0
    assert features([-1.0], [0.5], "la la la la la")[-1] == pytest.approx(2 / 3, abs=1e-4)
    assert len(features([-1.0], [0.5], "")) == len(FEATURES)
    assert features([], [], "text") is None


def test_what_tells_is_learnt_and_what_does_not_is_not():
    """Cross-validated, a telling feature gives a good AUC and a low risk at low coverage; noise gives neither."""
    telling = calibrate(pairs(400, telling=3.0))
    assert telling.calibration.auc > 0.9
    assert telling.calibration.brier < telling.brier_of_share / 2
    risks = [risk for _, risk in telling.risks]
    assert risks[-1] < 0.1 < risks[0]
    noise = calibrate(pairs(400, telling=0.0)).calibration
    assert 0.35 < noise.auc < 0.65


def test_estimates_are_calibrated():
    """Of answers that it never saw and calls 70 % sure, about 70 % are good."""
    calibration = calibrate(pairs(3_000, telling=1.5)).calibration
    fresh = pairs(6_000, telling=1.5, seed=2)
    estimates = np.array([calibration.estimate(pair.features) for pair in fresh])
    good = np.array([pair.good for pair in fresh])
    for low in (0.2, 0.4, 0.6, 0.8):
        those = (estimates >= low) & (estimates < low + 0.2)
        assert abs(good[those].mean() - estimates[those].mean()) < 0.07
    assert calibration.estimate([1e9] * len(FEATURES)) in (pytest.approx(0.0), pytest.approx(1.0))


@pytest.mark.parametrize(("good", "bad"), [(0, 0), (100, 9), (9, 100), (LEAST_PAIRS // 2 - 1, LEAST_PAIRS // 2)])
def test_too_little_to_learn_from(good, bad):
    """The message says how many there are of each kind."""
    few = [Pair(tuple(PAIR), good=True)] * good + [Pair(tuple(PAIR), good=False)] * bad
    with pytest.raises(ValueError, match=f"{good} good and {bad} bad"):
        calibrate(few)


def test_equal_features_teach_nothing_and_break_nothing():
    """A feature that never changes has no weight."""
    same = [Pair(tuple(PAIR), good=number % 2 == 0) for number in range(100)]
    report = calibrate(same)
    assert report.calibration.estimate(PAIR) == pytest.approx(0.5, abs=0.01)


def test_pairs_are_read_from_the_log_and_from_plain_lines():
    """Drafts with a verdict count; dropped drafts, other lines, and lines that are none are told as without."""
    attempt = {"role": "draft", "features": PAIR}
    lines = [
        {"features": PAIR, "good": True},
        {"event": "request", "draft": "confirmed", "attempts": [{"role": "final"}, attempt], "status": 200},
        {"draft": "revised", "attempts": [attempt]},
        {"draft": "dropped", "attempts": [attempt]},
        {"draft": "confirmed", "attempts": [{"role": "draft"}]},
        {"features": PAIR[:3], "good": True},
        {"draft": {"state": "x"}},
    ]
    read, without = read_pairs(
        [json.dumps(line).encode() for line in lines] + [b"no json", b"\xff", b'{"features": [1e999]}']
    )
    assert [pair.good for pair in read] == [True, True, False]
    assert without == 7


def test_estimate_belongs_to_one_model_and_follows_its_file(tmp_path):
    """No file, a broken one, or another model's: no estimate. A new file is read at once."""
    confidence = Confidence(tmp_path)
    assert confidence.estimate("abc-q8_0", PAIR) is None
    path = calibration_file(tmp_path, "abc-q8_0")
    path.parent.mkdir()
    learnt = calibrate(pairs(200, telling=2.0)).calibration
    path.write_bytes(msgspec.json.encode(learnt))
    assert confidence.estimate("abc-q8_0", PAIR) == learnt.estimate(PAIR)
    assert confidence.threshold("abc-q8_0", 0.2) == learnt.threshold(0.2)
    assert confidence.threshold("abc-q4_0", 0.2) is None
    assert confidence.estimate("abc-q4_0", PAIR) is None
    assert confidence.estimate("", PAIR) is None
    assert confidence.estimate("abc-q8_0", None) is None
    path.write_bytes(b"{}")
    os.utime(path, ns=(1, 1))
    assert confidence.estimate("abc-q8_0", PAIR) is None


BEFORE_MARGINS = tuple(name for name in FEATURES if not name.startswith("margin"))
OLD = {"features": BEFORE_MARGINS, **dict.fromkeys(("centre", "scale", "weights"), (1.0,) * len(BEFORE_MARGINS))}


@pytest.mark.parametrize(
    "change", [OLD, {"features": ("other",)}, {"scale": (1.0,)}, {"scale": (0.0,) * len(FEATURES)}]
)
def test_a_calibration_of_another_kind_is_not_used(tmp_path, change):
    """What was learnt from other features (an older version's), or cannot be divided by, counts as none."""
    path = tmp_path / "file"
    learnt = calibrate(pairs(200, telling=2.0)).calibration
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(learnt, **change)))
    assert read_calibration(path) is None


def test_a_target_error_has_a_threshold_that_keeps_it():
    """Of fresh answers that stand under it no more are bad than was aimed at; a stricter target lets fewer stand."""
    calibration = calibrate(pairs(3_000, telling=2.5)).calibration
    fresh = pairs(6_000, telling=2.5, seed=2)
    estimates = np.array([calibration.estimate(pair.features) for pair in fresh])
    good = np.array([pair.good for pair in fresh])
    shares = []
    for target in (0.2, 0.1, 0.05):
        stands = estimates >= calibration.threshold(target)
        assert 1 - good[stands].mean() <= target
        shares.append(stands.mean())
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] > 0.1


def test_a_target_that_cannot_be_kept_lets_nothing_stand():
    """With noise, or with too few answers to be sure, no threshold is high enough; without a curve there is none."""
    assert calibrate(pairs(400, telling=0.0)).calibration.threshold(0.05) == np.inf
    few = calibrate(pairs(60, telling=6.0)).calibration
    assert few.threshold(0.001) == np.inf
    assert msgspec.structs.replace(few, curve=()).threshold(0.5) is None


@pytest.mark.parametrize(("bad", "of", "bound"), [(0, 44, 0.05), (0, 22, 0.1), (2, 52, 0.1), (3, 3, 1.0)])
def test_few_answers_prove_little(bad, of, bound):
    """The bound on the error rate is the one of Clopper and Pearson: 44 answers without one bad show under 5.1 %."""
    assert most_error(bad, of) == pytest.approx(bound, abs=0.002)
