"""`firstdraft edge`, with the real model."""

import json
import random
import re

import pytest
from click.testing import CliRunner

from gateway.cli.main import firstdraft
from gateway.modes.confidence import FEATURES, Confidence

pytestmark = pytest.mark.edge


@pytest.fixture
def run(tmp_path):
    """Runs the command line with a state folder of its own."""
    return lambda *arguments: CliRunner().invoke(firstdraft, ["edge", *arguments, "--state", str(tmp_path)])


def test_formats_are_made_and_shown(run):
    """What `quantize` makes, `formats` shows; the shipped model is loaded as Q8_0 unless something else was chosen."""
    made = run("quantize", "--to", "q4_0,Q4_0")
    assert made.exit_code == 0
    assert len(made.output.splitlines()) == 1
    shown = run("formats").output
    assert re.search(r"^q4_0 +9\d\.\d MB$", shown, re.MULTILINE)
    assert re.search(r"^q8_0 +- +loaded at the next start$", shown, re.MULTILINE)


@pytest.mark.parametrize("given", ["q9_9", "", ",", "q8_0,x"])
def test_an_unknown_format_is_refused(run, given):
    """The message names it, and what there is."""
    done = run("quantize", "--to", given)
    assert done.exit_code == 2
    assert "iq4_nl" in done.output


def test_a_file_that_is_no_model_is_refused(run, tmp_path):
    """Without a traceback, with the file's name."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\3\0\0\0 and nothing of use")
    for arguments in (("quantize", str(broken), "--to", "q8_0"), ("tune", str(broken), "--to", "q8_0")):
        done = run(*arguments)
        assert type(done.exception).__name__ == "EdgeUnavailable"
        assert "broken.gguf" in str(done.exception) or "q8_0" in str(done.exception)


@pytest.mark.slow
def test_tune_keeps_the_fastest_that_is_good_enough(run):
    """It measures the file and each format, says what it keeps, and that is what is loaded from then on."""
    done = run("tune", "--to", "q4_0", "--max-quality-loss", "1")
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines()]
    figures = {row[0]: row for row in rows if len(row) > 6 and row[1].isdigit()}
    assert set(figures) == {"source", "q4_0"}
    assert figures["source"][6] == "100.0%"
    assert float(figures["q4_0"][6].rstrip("%")) > 40
    kept = re.search(r"^(\w+) is kept", done.output, re.MULTILINE)[1]
    assert re.search(rf"^{kept} .*loaded at the next start$", run("formats").output, re.MULTILINE)
    strict = run("tune", "--to", "q4_0", "--max-quality-loss", "0", "--dry-run").output
    assert "source would be kept" in strict


def log_of_drafts(path, count, *, telling):
    """Lines as the gateway logs them, in which good drafts are surer."""
    chance = random.Random(1)
    with path.open("w") as file:
        for number in range(count):
            good = number % 3 > 0
            values = [chance.gauss(telling if good else 0.0, 1.0) for _ in FEATURES]
            line = {"draft": "confirmed" if good else "replaced", "attempts": [{"role": "draft", "features": values}]}
            file.write(json.dumps(line) + "\n")
    return path


def test_calibrate_learns_from_the_log(run, tmp_path):
    """It tells AUC, Brier score, risk and coverage, and keeps what it has learnt for the format that is loaded."""
    log = log_of_drafts(tmp_path / "log.jsonl", 200, telling=1.0)
    assert "not kept" in run("calibrate", str(log), "--dry-run").output
    done = run("calibrate", str(log))
    assert done.exit_code == 0, done.output
    assert "200 answers, 66.5% good" in done.output
    assert float(re.search(r"^AUC +([0-9.]+)", done.output, re.MULTILINE)[1]) > 0.8
    (fingerprint,) = re.findall(r"^kept for (\w+-q8_0)$", done.output, re.MULTILINE)
    confidence = Confidence(tmp_path)
    assert confidence.estimate(fingerprint, [3.0] * len(FEATURES)) > 0.9
    assert confidence.estimate(fingerprint, [-3.0] * len(FEATURES)) < 0.1


def test_what_knows_nothing_is_not_kept(run, tmp_path):
    """Noise teaches nothing: drafts then have no confidence rather than a false one."""
    done = run("calibrate", str(log_of_drafts(tmp_path / "log.jsonl", 200, telling=0.0)))
    assert "not kept" in done.output
    assert not list(tmp_path.glob("models/*.confidence"))


def test_too_few_verdicts_are_an_error(run, tmp_path):
    """It says how many there are."""
    done = run("calibrate", str(log_of_drafts(tmp_path / "log.jsonl", 9, telling=1.0)))
    assert "6 good and 3 bad" in str(done.exception)
