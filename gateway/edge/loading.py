"""From a model's name to an engine that is warm."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.edge.engine import Deliver, Engine
from gateway.edge.model import Model
from gateway.edge.model_files import prepare_model
from gateway.edge.preparation import Preparation
from gateway.edge.protocol import Submit
from gateway.edge.quantization import quantize_q8_0
from gateway.edge.scheduler import Limits
from gateway.inference.request import Message

_WARM_WORDS = 100
_WARM_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Loaded:
    """What serves."""

    engine: Engine
    preparation: Preparation
    n_ctx: int


def load_engine(name: str, state_dir: Path, limits: Limits, threads: int, deliver: Deliver) -> Loaded:
    """Finds, checks, converts, loads and warms. Raises EdgeError when the model cannot be used."""
    log = structlog.get_logger()
    started = time.monotonic()
    path, trouble = prepare_model(name, state_dir, quantize_q8_0)
    if trouble:
        log.warning("edge model format", trouble=trouble)
    model = Model(path, limits=limits, threads=threads)
    preparation = Preparation(model)
    engine = Engine(model, limits, deliver)
    engine.expect(_warm(model, limits, preparation))
    log.info("edge warm", file=str(path), seconds=round(time.monotonic() - started, 3))
    return Loaded(engine, preparation, model.n_ctx)


def _warm(model: Model, limits: Limits, preparation: Preparation) -> float:
    """Answers twice, to nobody: the first time touches the memory, the second is timed. Prompt tokens a second."""
    rate = 0.0
    for number in (1, 2):
        engine = Engine(model, limits, lambda _outputs, _load: None)
        request = Submit(id=number, messages=(Message("user", "warm " * _WARM_WORDS),), max_tokens=_WARM_TOKENS)
        tokens = preparation.prompt(request)[: limits.cells - _WARM_TOKENS]
        engine.submit(None, request, tokens, _WARM_TOKENS, time.monotonic())
        while engine.turn():
            rate = engine.prefill_rate
        model.clear()
    return rate
