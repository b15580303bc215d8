"""From a model's name to an engine that is warm."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.edge import hub
from gateway.edge.engine import Deliver, Engine
from gateway.edge.grouping import MEASURED_ROWS, best_groups
from gateway.edge.job import Prompt
from gateway.edge.log import write_log
from gateway.edge.model import Model
from gateway.edge.model_files import fingerprint, prepare_model
from gateway.edge.preparation import Preparation
from gateway.edge.protocol import Submit
from gateway.edge.quantization import quantize
from gateway.edge.room import BESIDE_BYTES, Room, rss_bytes
from gateway.edge.scheduler import Batch, Limits
from gateway.edge.threads import choose
from gateway.inference.request import Message

_WARM_TOKENS = 4
_TIMES = 2
_SEQUENCES = 16


@dataclass(frozen=True, slots=True)
class Loaded:
    """What serves."""

    engine: Engine
    preparation: Preparation
    n_ctx: int
    fingerprint: str
    memory_bytes: int


def load_engine(
    name: str,
    state_dir: Path,
    limits: Limits,
    *,
    threads: int,
    plain: bool = False,
    memory_bytes: int = 0,
    deliver: Deliver,
    tell: Callable[[str], None],
) -> Loaded:
    """Finds or fetches, checks, converts, loads and warms. Raises EdgeError when the model cannot be used.

    `plain`: see `Model`. `memory_bytes`: the most that it may take; 0: what there is. `tell` hears what takes
    long, in words.
    """
    started = time.monotonic()
    if name.startswith(hub.PREFIX):
        name = str(hub.fetch(name, state_dir / "hub", tell))
    path, trouble = prepare_model(name, state_dir, quantize)
    room = Room(memory_bytes)
    room.check(path.name, path.stat().st_size)
    if trouble:
        write_log("warning", "edge model format", trouble=trouble)
    model = Model(path, limits=limits, threads=threads or 1, plain=plain, room=room)
    limits = replace(limits, turns=not model.gathers)
    if not model.gathers and os.uname().machine == "x86_64":
        trouble = "llama.cpp was built without the kernels of deploy/llama_cpp: see First steps in the README"
        write_log("warning", "edge is slow", trouble=trouble)
    model.use_threads(choose(threads, lambda count: _time_threads(model, limits, count)))
    preparation = Preparation(model)
    engine = Engine(model, limits, deliver)
    engine.expect(_warm(model, limits, preparation))
    _return_memory()
    write_log("info", "edge warm", file=str(path), threads=model.threads, seconds=round(time.monotonic() - started, 3))
    taken = max(model.model_bytes + model.kv_bytes + BESIDE_BYTES, rss_bytes())  # with AMX its own layout takes more
    return Loaded(engine, preparation, model.n_ctx, fingerprint(path, state_dir), taken)


def _warm(model: Model, limits: Limits, preparation: Preparation) -> float:
    """Times small batches and sets the model's groups, then answers once, to nobody. Returns prompt tokens a second."""
    rows = [size for size in MEASURED_ROWS if size <= limits.active]
    _time(model, limits.rows)
    model.groups = best_groups({size: min(_time(model, size) for _ in range(_TIMES)) for size in rows})
    engine = Engine(model, limits, lambda _outputs, _load: None)
    request = Submit(id=1, messages=(Message("user", "warm " * limits.step_rows),), max_tokens=_WARM_TOKENS)
    tokens = preparation.prompt(request).tokens[: limits.step_rows]
    engine.submit(None, request, Prompt(tokens), _WARM_TOKENS, time.monotonic())
    while engine.turn():
        continue
    model.clear()
    return engine.prefill_rate


def _time_threads(model: Model, limits: Limits, threads: int) -> float:
    """Seconds for a step of a prompt and some of an answer, the best of a few."""
    model.use_threads(threads)
    _time(model, limits.rows)
    return min(_time(model, limits.rows, of=time.perf_counter) for _ in range(_TIMES))


def _return_memory() -> None:
    """Gives back what loading left in the heap, where the C library can (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _time(model: Model, rows: int, of: Callable[[], float] = time.thread_time) -> float:
    """Seconds for one batch of so many sequences' first tokens; of CPU time, which others do not disturb."""
    rows = min(rows, model.n_ctx)
    sequences = [row % _SEQUENCES for row in range(rows)]
    positions = [row // _SEQUENCES for row in range(rows)]
    started = of()
    model.decode(Batch(tokens=[1] * rows, positions=positions, sequences=sequences))
    seconds = of() - started
    model.clear()
    return seconds
