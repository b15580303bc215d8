"""Another format of a model, made by llama.cpp."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp

from gateway.edge.model import Silence


def quantize_q8_0(source: Path, target: Path, *, threads: int = 1) -> None:
    """Writes `target` as Q8_0 (8 bits a weight). Raises RuntimeError when llama.cpp cannot."""
    silence = Silence()
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    params.allow_requantize = True
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    del silence
    if code:
        raise RuntimeError(f"llama.cpp could not quantize {source.name} (code {code})")
