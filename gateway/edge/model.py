"""One llama.cpp model with one context: with `grammar` and `quantization`, all that touches llama.cpp.

Everything here is for one thread at a time, but for `tokenize`, `template` and the constants: the vocabulary does not
change, so the thread that prepares prompts may use them while the other decodes.

Traps of the API that shaped this file:
  - without `kv_unified` a partial copy of a sequence aborts the process; `n_outputs_max` below `n_seq_max` does, too;
  - the log callback must stay referenced, and is called 2,300 times at load: it does nothing;
  - a mapped file stays in memory beside the weights in a layout of their own (AMX): it is read instead;
  - asking 49,000 times which tokens end an answer takes 15 ms: done once, at load.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.edge.grammar import Grammar
from gateway.edge.llama import llama_cpp
from gateway.edge.room import Room
from gateway.edge.sampling import Logits, Spread, Surprise
from gateway.edge.scheduler import Batch, Limits
from gateway.edge.template import Template
from gateway.errors import EdgeUnavailable

_FLASH_ATTENTION_ON = 1
_PIECE_BYTES = 512
_NO_CELL = 1
_ABORTED = 2
_GO_ON = b"0"
_ABORT = b"1"


_SAYS_NOTHING = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
"""Kept for good: llama.cpp may call what it was given at any time, also without a model."""


def silence() -> None:
    """Keeps llama.cpp quiet from now on."""
    llama_cpp.llama_log_set(_SAYS_NOTHING, ctypes.c_void_p(0))


class Model:
    """A loaded model. Raises EdgeUnavailable when llama.cpp cannot load the file or make the context.

    `plain`: without the kernels that want the weights in a layout of their own (AMX and the like). `room`: what it
    has to fit in.
    """

    def __init__(
        self, path: Path, *, limits: Limits, threads: int, plain: bool = False, room: Room | None = None
    ) -> None:
        silence()
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        params.use_extra_bufts = not plain
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not model:
            raise EdgeUnavailable(f"llama.cpp cannot load the model {path}: it is damaged, or of an unknown kind")
        self._model = model
        self.model_bytes = int(llama_cpp.llama_model_size(model))
        if room is not None:
            room.check(path.name, self.model_bytes, self._kv_bytes(limits.cells), loaded=True)
        self.n_ctx = min(limits.cells, llama_cpp.llama_model_n_ctx_train(model) or limits.cells)
        """Most tokens of one request, prompt and answer together."""
        self._context = self._make_context(limits, threads)
        memory = llama_cpp.llama_get_memory(self._context)
        if memory is None:
            raise EdgeUnavailable(f"the model {path} has no KV cache: it is not one that generates text")
        self._memory = memory
        vocabulary = llama_cpp.llama_model_get_vocab(model)
        if vocabulary is None:
            raise EdgeUnavailable(f"the model {path} has no vocabulary")
        self._vocabulary = vocabulary
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self.eog = frozenset(token for token in range(self.n_vocab) if llama_cpp.llama_vocab_is_eog(vocabulary, token))
        """Tokens that end an answer."""
        self.template = self._read_template()
        self.control_words = self._read_control_words()
        self._piece_buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        self._make_batch(limits.rows)
        self._listen_for_abort()
        self.threads = threads
        self._logits: dict[int, Logits] = {}
        native = native_spread()
        self.spread: Callable[[Logits], Spread] = native or Surprise(self.n_vocab)
        self.gathers = native is not None
        """llama.cpp has the attention of deploy/llama_cpp, which came with it."""
        self._kept_logits = np.empty((limits.active, self.n_vocab), dtype=np.float32)
        self.groups: list[tuple[int, ...]] = []
        """For so many rows: the sizes of the calls to decode them in (see `grouping`). Beyond: all at once."""

    def _make_context(self, limits: Limits, threads: int) -> llama_cpp.llama_context_p:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = limits.cells
        params.n_batch = params.n_ubatch = limits.rows
        params.n_seq_max = limits.sequences
        params.n_outputs_max = limits.sequences
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        params.flash_attn_type = _FLASH_ATTENTION_ON
        params.no_perf = True
        context: llama_cpp.llama_context_p | None = llama_cpp.llama_init_from_model(self._model, params)
        if not context:
            raise EdgeUnavailable(f"llama.cpp cannot make a context of {limits.cells} tokens: is there enough memory?")
        return context

    def _make_batch(self, rows: int) -> None:
        """Arrays owned by numpy, and one llama_batch that points into them for good."""
        self._tokens = np.zeros(rows, dtype=np.int32)
        self._positions = np.zeros(rows, dtype=np.int32)
        self._sequences = np.zeros(rows, dtype=np.int32)
        self._counts = np.ones(rows, dtype=np.int32)
        self._wanted = np.zeros(rows, dtype=np.int8)
        step = self._sequences.itemsize
        self._sequence_pointers = self._sequences.ctypes.data + step * np.arange(rows, dtype=np.uintp)
        batch = llama_cpp.llama_batch()
        int32_p = ctypes.POINTER(ctypes.c_int32)
        _point(batch, "token", self._tokens, int32_p)
        _point(batch, "pos", self._positions, int32_p)
        _point(batch, "n_seq_id", self._counts, int32_p)
        _point(batch, "seq_id", self._sequence_pointers, ctypes.POINTER(int32_p))
        _point(batch, "logits", self._wanted, ctypes.POINTER(ctypes.c_int8))
        self._batch = batch

    def use_threads(self, threads: int) -> None:
        """Decodes with so many threads from now on."""
        self.threads = threads
        llama_cpp.llama_set_n_threads(self._context, threads, threads)

    def close(self) -> None:
        """Frees context and model; the object cannot be used any more."""
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    # --- decoding -----------------------------------------------------------------------------------------------

    def decode(self, batch: Batch) -> bool:
        """Decodes the rows. False when `abort` ended it: the sequences then hold some of the rows, and must be trimmed.

        Raises RuntimeError when llama.cpp cannot: a fault, not a condition.
        """
        self._abort_flag.value = _GO_ON
        self._logits.clear()
        sizes = self.groups[len(batch.tokens)] if len(batch.tokens) < len(self.groups) else (len(batch.tokens),)
        start = 0
        for size in sizes:
            if not self._decode_rows(batch, start, start + size):
                return False
            start += size
            if start < len(batch.tokens):
                self._keep_logits()
        return True

    def abort(self) -> None:
        """Ends the running `decode` within a millisecond or so. For any thread."""
        self._abort_flag.value = _ABORT

    def logits(self, row: int) -> Logits:
        """Logits of a row whose logits were wanted. Valid until the next `decode`."""
        return self._logits[row]

    def _decode_rows(self, batch: Batch, start: int, end: int) -> bool:
        rows = end - start
        self._tokens[:rows] = batch.tokens[start:end]
        self._positions[:rows] = batch.positions[start:end]
        self._sequences[:rows] = batch.sequences[start:end]
        wanted = [row for row, _ in batch.sampled if start <= row < end]
        self._wanted[:rows] = 0
        for row in wanted:
            self._wanted[row - start] = 1
        self._batch.n_tokens = rows
        code = llama_cpp.llama_decode(self._context, self._batch)
        if code == _ABORTED:
            return False
        if code:
            why = "no cell was free" if code == _NO_CELL else f"code {code}"
            raise RuntimeError(f"llama_decode failed on {rows} rows: {why}")
        if wanted:
            pointer = llama_cpp.llama_get_logits(self._context)
            rows_type = ctypes.c_float * (self.n_vocab * len(wanted))
            logits = np.frombuffer(rows_type.from_address(ctypes.addressof(pointer.contents)), dtype=np.float32)
            self._logits.update(zip(wanted, logits.reshape(len(wanted), self.n_vocab), strict=True))
        return True

    def _keep_logits(self) -> None:
        """The next call overwrites llama.cpp's logits."""
        for place, (row, logits) in enumerate(self._logits.items()):
            if logits.base is not self._kept_logits:
                self._kept_logits[place] = logits
                self._logits[row] = self._kept_logits[place]

    def _listen_for_abort(self) -> None:
        """Lets llama.cpp ask after every operation whether to go on, without entering Python: by C's own `atoi`.

        It is called a thousand times a step, with a pointer to one digit: "0" is false, "1" is true.
        """
        self._abort_flag = ctypes.create_string_buffer(_GO_ON)
        self._atoi = ctypes.cast(ctypes.CDLL(None).atoi, llama_cpp.ggml_abort_callback)
        flag = ctypes.cast(self._abort_flag, ctypes.c_void_p)
        llama_cpp.llama_set_abort_callback(self._context, self._atoi, flag)

    def trim(self, sequence: int, length: int) -> None:
        """The sequence keeps its first `length` tokens."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, length, -1)

    def copy(self, source: int, target: int, length: int) -> None:
        """The empty sequence `target` begins with the first `length` tokens of `source`."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def clear(self) -> None:
        """All sequences become empty."""
        llama_cpp.llama_memory_clear(self._memory, False)  # noqa: FBT003 - llama.cpp's signature

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache."""
        return self._kv_bytes(llama_cpp.llama_n_ctx(self._context))

    def _kv_bytes(self, cells: int) -> int:
        """f16 keys and values of all layers."""
        embedding = llama_cpp.llama_model_n_embd(self._model)
        heads = llama_cpp.llama_model_n_head(self._model) or 1
        shared = llama_cpp.llama_model_n_head_kv(self._model)
        layers = llama_cpp.llama_model_n_layer(self._model)
        return int(2 * 2 * layers * (embedding // heads) * shared * cells)

    def grammar(self, text: str) -> Grammar:
        """What holds one answer to a grammar. Raises EdgeUnsuitable when it cannot be followed."""
        return Grammar(self._vocabulary, self.n_vocab, text)

    # --- words --------------------------------------------------------------------------------------------------

    def tokenize(self, text: str, *, special: bool, first: bool) -> list[int]:
        """Tokens of the text. `special`: control words become control tokens. `first`: add what a text starts with."""
        data = text.encode("utf-8", errors="replace")
        room = len(data) + 8
        tokens: npt.NDArray[np.int32] = np.empty(room, dtype=np.int32)
        pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = llama_cpp.llama_tokenize(self._vocabulary, data, len(data), pointer, room, first, special)
        if count < 0:
            raise RuntimeError(f"the tokenizer made {-count} tokens of {len(data)} bytes")
        found: list[int] = tokens[:count].tolist()
        return found

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of a token: maybe half a character. Control tokens are empty unless `special`."""
        buffer = self._piece_buffer if not special else ctypes.create_string_buffer(_PIECE_BYTES)
        length = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, _PIECE_BYTES, 0, special)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, -length, 0, special)
        return buffer.raw[:length]

    def word(self, token: int) -> bytes:
        """The bytes of a token, as they are told to clients: of a control token its name."""
        return self.piece(token, special=True)

    def _word(self, token: int) -> str:
        if token < 0:
            return ""
        return (llama_cpp.llama_vocab_get_text(self._vocabulary, token) or b"").decode("utf-8", errors="replace")

    def _read_template(self) -> Template:
        source = llama_cpp.llama_model_chat_template(self._model, None)
        return Template(
            source=source.decode("utf-8", errors="replace") if source else None,
            bos=self._word(llama_cpp.llama_vocab_bos(self._vocabulary)),
            eos=self._word(llama_cpp.llama_vocab_eos(self._vocabulary)),
        )

    def _read_control_words(self) -> tuple[str, ...]:
        control = (token for token in range(self.n_vocab) if llama_cpp.llama_vocab_is_control(self._vocabulary, token))
        return tuple(word for token in control if (word := self._word(token)))


def _point(
    batch: llama_cpp.llama_batch,
    field: str,
    array: npt.NDArray[Any],
    kind: type[ctypes._Pointer[Any]],
) -> None:
    """Lets a field of the batch point at numpy's memory, which must outlive it."""
    setattr(batch, field, ctypes.cast(array.ctypes.data, kind))


def native_spread() -> Callable[[Logits], Spread] | None:
    """The spread of a row of logits by deploy/llama_cpp/spread.h; None where llama.cpp was built without it."""
    native = getattr(llama_cpp._lib, "firstdraft_spread", None)  # noqa: SLF001 (one way to what it loaded)
    if native is None:
        return None
    native.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    native.restype = None
    found = (ctypes.c_double * 4)()

    def spread(row: Logits) -> Spread:
        native(row.ctypes.data, len(row), found)
        top, log_total, mean, margin = found
        return Spread(int(top), log_total, mean, max(0.0, margin))

    return spread
