"""Measures one format of a model, in a process of its own: `python -m gateway.edge.tuning FILE THREADS`.

A process each, so that one format's memory is not counted for the next, and a crash in one ends nothing else. It prints
JSON lines: `{"done": 0.4}` as it comes along, at last what it measured.
"""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from gateway.edge.formats import Measured
from gateway.edge.job import Job
from gateway.edge.scheduler import Batch, Limits

if TYPE_CHECKING:
    from gateway.edge.model import Model

_ROWS = 32
"""Rows a step whose logits are all looked at."""
_WINDOW = 512
"""Tokens that are read in one piece; each piece begins without the one before."""
_TIMED_TOKENS = 256
_TIMED_STEPS = 32
_TIMES = 3
_PLAIN = "--plain"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What the process has measured of one file."""

    prefill_rate: float
    decode_rate: float
    model_bytes: int
    perplexity: float
    likeliest: list[int]
    """At each position of the text."""
    plain: bool = False
    """By the plain kernels only: this build of llama.cpp has faster ones, which cannot run here."""


class _Done(msgspec.Struct, frozen=True):
    done: float


def text() -> str:
    """The text that quality is measured on."""
    return resources.files("gateway.edge").joinpath("tuning_text.txt").read_text("utf-8")


def read(path: Path, threads: int, progress: Callable[[float], None]) -> Reading:
    """Measures the file in another process; `progress` hears the share that is done, 0..1. Raises RuntimeError.

    One that ends with an illegal instruction is made once more, with the plain kernels: as the edge then runs, too.
    """
    command = [sys.executable, "-m", "gateway.edge.tuning", str(path), str(threads)]
    status, last, said = _run(command, progress)
    if status == -signal.SIGILL:
        status, last, said = _run([*command, _PLAIN], progress)
    if status:
        raise RuntimeError(f"{path.name} could not be measured: {said.splitlines()[-1] if said else 'it crashed'}")
    return msgspec.json.decode(last, type=Reading)


def _run(command: list[str], progress: Callable[[float], None]) -> tuple[int, bytes, str]:
    """The process's status, its last line, and what it wrote to stderr."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        last = b""
        for line in process.stdout or ():
            if line.startswith(b'{"done"'):
                progress(msgspec.json.decode(line, type=_Done).done)
            else:
                last = line
        said = (process.stderr.read() if process.stderr else b"").decode(errors="replace").strip()
        return process.wait(), last, said


def measured(name: str, reading: Reading, source: Reading) -> Measured:
    """A format beside the source."""
    same = sum(one == other for one, other in zip(reading.likeliest, source.likeliest, strict=True))
    return Measured(
        name=name,
        prefill_rate=reading.prefill_rate,
        decode_rate=reading.decode_rate,
        model_bytes=reading.model_bytes,
        perplexity=reading.perplexity,
        agreement=same / len(source.likeliest),
    )


def main() -> None:
    """Measures, and prints."""
    from gateway.edge.model import Model  # noqa: PLC0415 - who only reads the results needs no llama.cpp

    path, threads, plain = Path(sys.argv[1]), int(sys.argv[2]), _PLAIN in sys.argv
    limits = Limits(cells=_WINDOW, sequences=_ROWS, active=_ROWS)
    model = Model(path, limits=limits, threads=threads, plain=plain)
    _tell({"done": 0.05})
    prefill_rate = _TIMED_TOKENS / min(_prefill_s(model, limits) for _ in range(_TIMES))
    decode_rate = _TIMED_STEPS / min(_decode_s(model) for _ in range(_TIMES))
    _tell({"done": 0.2})
    tokens = model.tokenize(text(), special=False, first=True)
    losses: list[float] = []
    likeliest: list[int] = []
    for place, (loss, token) in enumerate(_judge(model, tokens)):
        losses.append(loss)
        likeliest.append(token)
        if place % _ROWS == 0:
            _tell({"done": 0.2 + 0.8 * place / len(tokens)})
    reading = Reading(
        prefill_rate=prefill_rate,
        decode_rate=decode_rate,
        model_bytes=model.model_bytes,
        perplexity=math.exp(sum(losses) / len(losses)),
        likeliest=likeliest,
        plain=plain,
    )
    sys.stdout.write(msgspec.json.encode(reading).decode() + "\n")


def _tell(line: dict[str, float]) -> None:
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def _judge(model: Model, tokens: list[int]) -> Iterator[tuple[float, int]]:
    """For each token but a piece's first: how surprising it was, in nats, and which would have been likeliest."""
    job = Job(key=(0, 0), tokens=[], max_tokens=1)
    for start in range(0, len(tokens), _WINDOW):
        piece = tokens[start : start + _WINDOW]
        model.clear()
        for first in range(0, len(piece) - 1, _ROWS):
            rows = piece[first : min(first + _ROWS, len(piece) - 1)]
            places = list(range(first, first + len(rows)))
            sampled = [(row, job) for row in range(len(rows))]
            model.decode(Batch(tokens=rows, positions=places, sequences=[0] * len(rows), sampled=sampled))
            for row in range(len(rows)):
                logits = model.logits(row).astype(np.float64)
                best = int(logits.argmax())
                total = float(np.log(np.exp(logits - logits[best]).sum()) + logits[best])
                yield total - float(logits[piece[first + row + 1]]), best


def _prefill_s(model: Model, limits: Limits) -> float:
    """Seconds for a prompt that is read in steps, as the edge reads it."""
    model.clear()
    started = time.perf_counter()
    for first in range(0, _TIMED_TOKENS, limits.step_rows):
        places = list(range(first, first + limits.step_rows))
        model.decode(Batch(tokens=[5 + place for place in places], positions=places, sequences=[0] * len(places)))
    return time.perf_counter() - started


def _decode_s(model: Model) -> float:
    """Seconds for so many tokens, one by one, after a short prompt."""
    job = Job(key=(0, 0), tokens=[], max_tokens=1)
    model.clear()
    started = time.perf_counter()
    for place in range(_TIMED_STEPS):
        model.decode(Batch(tokens=[5 + place], positions=[place], sequences=[0], sampled=[(0, job)]))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
