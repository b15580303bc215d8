import json
import sys

import pytest

from gateway.edge import tuning

READING = {"prefill_rate": 1.0, "decode_rate": 1.0, "model_bytes": 1, "perplexity": 2.0, "likeliest": [1]}


@pytest.fixture
def processor_without(monkeypatch, tmp_path):
    """Has the measuring process die of an illegal instruction, always or unless it is told to be plain."""

    def install(*, plain_runs: bool) -> None:
        script = tmp_path / "python"
        answer = json.dumps(READING | {"plain": True})
        plain = f"case \"$*\" in *--plain) echo '{answer}'; exit 0;; esac" if plain_runs else ""
        script.write_text(f"#!/bin/sh\n{plain}\nkill -ILL $$\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return install


def test_kernels_that_cannot_run_are_done_without(processor_without, tmp_path):
    """A measurement that dies of an illegal instruction is made once more with the plain kernels, and says so."""
    processor_without(plain_runs=True)
    assert tuning.read(tmp_path / "model.gguf", 1, lambda _share: None).plain


def test_a_measurement_that_always_crashes_is_an_error(processor_without, tmp_path):
    """It is tried twice and no more."""
    processor_without(plain_runs=False)
    with pytest.raises(RuntimeError, match=r"model\.gguf could not be measured"):
        tuning.read(tmp_path / "model.gguf", 1, lambda _share: None)
