"""Another format of a model, made by llama.cpp."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

from gateway.edge.llama import llama_cpp
from gateway.edge.model import silence

_FILE_TYPES: Mapping[str, int] = {
    "f16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q6_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
    "q5_1": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_1,
    "q5_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_0,
    "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "q4_1": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "iq4_nl": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_NL,
}
"""Of `formats.LADDER`."""


def quantize(source: Path, target: Path, name: str, *, threads: int = 1) -> None:
    """Writes `target` in the format of this name. Raises RuntimeError when llama.cpp cannot."""
    silence()
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = _FILE_TYPES[name]
    params.allow_requantize = True
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    if code:
        raise RuntimeError(f"llama.cpp could not make {name} of {source.name} (code {code})")
