"""Holds one answer to a grammar, by llama.cpp's own automaton.

Lazy: the token that was sampled is asked about alone (under a tenth of a millisecond). Only when it is refused is the
whole vocabulary gone through (a few milliseconds), and the token drawn again from what is left.
"""

from __future__ import annotations

import ctypes
import weakref

import numpy as np

from gateway.edge.llama import llama_cpp
from gateway.edge.sampling import Logits
from gateway.errors import EdgeUnsuitable

_ROOT = b"root"
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data."""


class Grammar:
    """The state of one answer's grammar. Not for several threads. Raises EdgeUnsuitable when llama.cpp refuses it."""

    def __init__(self, vocabulary: llama_cpp.llama_vocab_p, n_vocab: int, text: str) -> None:
        sampler = llama_cpp.llama_sampler_init_grammar(vocabulary, text.encode(), _ROOT)
        if not sampler:
            raise EdgeUnsuitable(
                "the JSON schema makes no grammar that the edge could follow: does it refer to itself?"
            )
        self._sampler = sampler
        self._n_vocab = n_vocab
        weakref.finalize(self, llama_cpp.llama_sampler_free, sampler)

    def allows(self, token: int) -> bool:
        """The token may be next."""
        candidates = np.zeros(1, dtype=_CANDIDATE)
        candidates["id"] = token
        self._apply(candidates)
        return bool(candidates["logit"][0] > -np.inf)

    def restrict(self, row: Logits) -> Logits | None:
        """The logits with all tokens that may not be next at minus infinity; None when none may."""
        candidates = np.zeros(self._n_vocab, dtype=_CANDIDATE)
        candidates["id"] = np.arange(self._n_vocab)
        candidates["logit"] = row
        self._apply(candidates)
        left: Logits = candidates["logit"].copy()
        return left if np.isfinite(left).any() else None

    def accept(self, token: int) -> None:
        """The token is next. It must be one that is allowed: llama.cpp ends the process for another."""
        llama_cpp.llama_sampler_accept(self._sampler, token)

    def _apply(self, candidates: np.ndarray[tuple[int], np.dtype[np.void]]) -> None:
        pointer = candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
        array = llama_cpp.llama_token_data_array(data=pointer, size=len(candidates), selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(array))
