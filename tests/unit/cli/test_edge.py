"""`firstdraft edge`, with the real model."""

import re

import pytest
from click.testing import CliRunner

from gateway.cli.main import firstdraft

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
