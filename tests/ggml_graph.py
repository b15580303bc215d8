"""One operation of ggml on the processor, computed by the libraries that llama_cpp has loaded, on arrays of numpy.

ggml names the fastest dimension first, numpy last: an array's shape is a tensor's, turned round.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from gateway.edge.llama import llama_cpp

lib = llama_cpp._lib
"""dlsym finds in it what the libraries that it needs have too."""

Q8_0 = 8
Q8_0_BLOCK = np.dtype([("factor", np.float16), ("whole", np.int8, 32)])
TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, Q8_0_BLOCK: Q8_0, np.dtype(np.int32): 26}

P, SIZE, I64, INT, FLOAT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, ctypes.c_int, ctypes.c_float


class InitParams(ctypes.Structure):
    _fields_ = (("mem_size", SIZE), ("mem_buffer", P), ("no_alloc", ctypes.c_bool))


class Feature(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("value", ctypes.c_char_p))


SIGNATURES = {
    "ggml_init": (P, InitParams),
    "ggml_free": (None, P),
    "ggml_tensor_overhead": (SIZE,),
    "ggml_new_tensor": (P, P, INT, INT, P),
    "ggml_new_graph": (P, P),
    "ggml_build_forward_expand": (None, P, P),
    "ggml_get_data": (P, P),
    "ggml_nbytes": (SIZE, P),
    "ggml_set_name": (P, P, ctypes.c_char_p),
    "ggml_permute": (P, P, P, INT, INT, INT, INT),
    "ggml_view_4d": (P, P, P, I64, I64, I64, I64, SIZE, SIZE, SIZE, SIZE),
    "ggml_mul_mat": (P, P, P, P),
    "ggml_get_rows": (P, P, P, P),
    "ggml_flash_attn_ext": (P, P, P, P, P, P, FLOAT, FLOAT, FLOAT),
    "ggml_flash_attn_ext_add_sinks": (None, P, P),
    "ggml_backend_cpu_init": (P,),
    "ggml_backend_cpu_reg": (P,),
    "ggml_backend_cpu_set_n_threads": (None, P, INT),
    "ggml_backend_free": (None, P),
    "ggml_backend_graph_compute": (INT, P, P),
    "ggml_backend_reg_get_proc_address": (P, P, ctypes.c_char_p),
    "ggml_backend_reg_dev_get": (P, P, SIZE),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, P, P),
    "ggml_backend_buft_name": (ctypes.c_char_p, P),
    "ggml_backend_alloc_ctx_tensors_from_buft": (P, P, P),
    "ggml_backend_buffer_free": (None, P),
    "ggml_backend_tensor_set": (None, P, P, SIZE, SIZE),
    "ggml_backend_tensor_get": (None, P, P, SIZE, SIZE),
}
for name, (result, *arguments) in SIGNATURES.items():
    getattr(lib, name).restype, getattr(lib, name).argtypes = result, arguments


@functools.cache
def features() -> frozenset[str]:
    """What the library was built to use of the processor, in ggml's words."""
    address = lib.ggml_backend_reg_get_proc_address(lib.ggml_backend_cpu_reg(), b"ggml_backend_get_features")
    feature = ctypes.CFUNCTYPE(ctypes.POINTER(Feature), P)(address)(lib.ggml_backend_cpu_reg())
    found = []
    while feature[len(found)].name:
        found.append(feature[len(found)].name.decode())
    return frozenset(found)


@functools.cache
def amx() -> int | None:
    """The kind of buffer that lays weights out for AMX; None where the build or the processor has none."""
    reg = lib.ggml_backend_cpu_reg()
    address = lib.ggml_backend_reg_get_proc_address(reg, b"ggml_backend_dev_get_extra_bufts")
    kinds = ctypes.CFUNCTYPE(ctypes.POINTER(P), P)(address)(lib.ggml_backend_reg_dev_get(reg, 0))
    at = 0
    while kind := kinds[at]:
        if lib.ggml_backend_buft_name(kind) == b"AMX":
            return kind
        at += 1
    return None


def dequantized(blocks):
    """The numbers that rows of Q8_0 blocks stand for, exactly."""
    return (blocks["factor"].astype(np.float64)[..., None] * blocks["whole"]).reshape(*blocks.shape[:-1], -1)


class Graph:
    """Tensors of one context, and what is computed from them. Made by `graph`."""

    def __init__(self, context: int, packed: int, backend: int) -> None:
        self.context, self._packed, self._backend = context, packed, backend
        self._buffers: list[int] = []
        self._contexts: list[int] = []

    def new(self, array, context: int):
        """A tensor of an array's type and shape, without its numbers."""
        sizes = list(reversed(array.shape))
        if array.dtype == Q8_0_BLOCK:
            sizes[0] *= 32
        return lib.ggml_new_tensor(context, TYPES[array.dtype], len(sizes), (I64 * len(sizes))(*sizes))

    def tensor(self, array):
        """An array's copy, in memory of its own: a sanitizer sees what is read beside it."""
        array = np.ascontiguousarray(array)
        self._contexts.append(lib.ggml_init(InitParams(lib.ggml_tensor_overhead() + array.nbytes, None, False)))
        tensor = self.new(array, self._contexts[-1])
        ctypes.memmove(lib.ggml_get_data(tensor), array.ctypes.data, array.nbytes)
        return tensor

    def amx_weights(self, blocks, name: str = "token_embd.weight"):
        """Weights in a buffer for AMX, which packs them."""
        tensor = self.new(blocks, self._packed)
        lib.ggml_set_name(tensor, name.encode())
        self._buffers.append(lib.ggml_backend_alloc_ctx_tensors_from_buft(self._packed, amx()))
        lib.ggml_backend_tensor_set(tensor, blocks.ctypes.data, 0, blocks.nbytes)
        return tensor

    def supports(self, result) -> bool:
        return lib.ggml_backend_dev_supports_op(lib.ggml_backend_reg_dev_get(lib.ggml_backend_cpu_reg(), 0), result)

    def compute(self, result, shape, n_threads: int = 1):
        """The numbers of `result`, of which `shape` is told in numpy's order."""
        lib.ggml_backend_cpu_set_n_threads(self._backend, n_threads)
        graph = lib.ggml_new_graph(self.context)
        lib.ggml_build_forward_expand(graph, result)
        out = np.empty(shape, np.float32)
        assert lib.ggml_nbytes(result) == out.nbytes
        ctypes.memset(lib.ggml_get_data(result), 0xFF, out.nbytes)  # NaN: what is not written shows
        assert lib.ggml_backend_graph_compute(self._backend, graph) == 0
        ctypes.memmove(out.ctypes.data, lib.ggml_get_data(result), out.nbytes)
        return out

    def close(self) -> None:
        for buffer in self._buffers:
            lib.ggml_backend_buffer_free(buffer)
        for context in self._contexts:
            lib.ggml_free(context)


@contextmanager
def graph(megabytes: int = 8) -> Iterator[Graph]:
    context = lib.ggml_init(InitParams(megabytes << 20, None, False))
    packed = lib.ggml_init(InitParams(1 << 16, None, True))
    backend = lib.ggml_backend_cpu_init()
    opened = Graph(context, packed, backend)
    try:
        yield opened
    finally:
        opened.close()
        lib.ggml_backend_free(backend)
        lib.ggml_free(packed)
        lib.ggml_free(context)
