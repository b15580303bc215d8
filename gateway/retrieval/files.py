"""Search in the index that `indexing` built: by words, and where it has vectors by meaning, fused by reciprocal rank.

Reciprocal rank fusion: a passage's score is Σ 1 / (60 + its rank) over the searches that found it (Cormack et al.,
2009). It needs no common scale between the two.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from gateway.errors import RetrievalFailed
from gateway.retrieval.filters import Filter
from gateway.retrieval.index_folder import IndexFolder
from gateway.retrieval.indexing import Embedder
from gateway.retrieval.passage import Passage, Results
from gateway.retrieval.rule import PassageStore
from gateway.retrieval.words import Words

_RANK_OFFSET = 60
_CANDIDATES = 50
"""Found by each of the two searches before they are fused."""
_FILTERED_CANDIDATES = 1_000
"""The same, where a filter will throw most of them away."""


class FileSearch:
    """One store's index. Another version that becomes current is used from the next search on.

    `embedder` gives the model, loaded at the first search that needs it.
    """

    def __init__(self, state: Path, name: str, embedder: Callable[[], Embedder] | None) -> None:
        self._name = name
        self._folder = IndexFolder(state, name)
        self._embedder = embedder
        self._stamp = (0, 0)
        self._open: _Version | None = None

    def version(self) -> str:
        """Of the documents; empty while there is no index."""
        return self._opened().name if self._folder.stamp() != (0, 0) else ""

    async def search(self, query: str, most: int, filters: object, test: Filter | None) -> Results:  # noqa: ARG002 as in Search
        """The best passages that pass the filter. Raises RetrievalFailed: there is no index."""
        version = self._opened()
        if version.vectors is None or self._embedder is None:
            return Results(tuple(version.by_words(query, most, test)), version.name)
        found = await asyncio.to_thread(version.by_both, query, most, test, self._embedder)
        return Results(tuple(found), version.name)

    async def close(self) -> None:
        self._open = None

    def _opened(self) -> _Version:
        stamp = self._folder.stamp()
        if self._open is None or stamp != self._stamp:
            folder = self._folder.current()
            if folder is None:
                message = f"store `{self._name}` has no index yet: firstdraft retrieval index DIR --store {self._name}"
                raise RetrievalFailed(message)
            try:
                self._open, self._stamp = _Version(folder), stamp
            except (OSError, ValueError) as error:
                raise RetrievalFailed(f"the index of store `{self._name}` cannot be read: {error}") from error
        return self._open


def open_search(store: PassageStore, state: Path, model: Callable[[], Embedder]) -> FileSearch:
    """The search of one store of policy's."""
    return FileSearch(state, store.name, model if store.embeddings else None)


class _Version:
    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._words = Words(folder / "words")
        self.vectors: np.ndarray | None = None
        self._ids: list[str] = []
        if (folder / "vectors.npy").exists():
            self.vectors = np.load(folder / "vectors.npy", mmap_mode="r")
            self._ids = json.loads((folder / "ids.json").read_text("utf-8"))

    def by_words(self, query: str, most: int, test: Filter | None) -> list[Passage]:
        if test is None:
            return self._words.search(query, most)
        found = self._words.search(query, _FILTERED_CANDIDATES)
        return [passage for passage in found if test(passage.attributes)][:most]

    def by_both(self, query: str, most: int, test: Filter | None, embedder: Callable[[], Embedder]) -> list[Passage]:
        candidates = max(most, _CANDIDATES) if test is None else _FILTERED_CANDIDATES
        by_words = self._words.search(query, candidates)
        by_meaning = self._nearest(embedder().embed([query])[0], candidates)
        scores: dict[str, float] = {}
        for ids in ([passage.id for passage in by_words], by_meaning):
            for rank, one in enumerate(ids, start=1):
                scores[one] = scores.get(one, 0.0) + 1 / (_RANK_OFFSET + rank)
        known = {passage.id: passage for passage in by_words}
        best = sorted(scores, key=lambda one: (-scores[one], one))
        best = best[:most] if test is None else best
        known |= self._words.by_ids([one for one in best if one not in known])
        found = [msgspec.structs.replace(known[one], score=scores[one]) for one in best if one in known]
        return [passage for passage in found if test is None or test(passage.attributes)][:most]

    def _nearest(self, vector: np.ndarray, most: int) -> list[str]:
        if self.vectors is None or not len(self.vectors):
            return []
        likeness = self.vectors @ vector
        most = min(most, len(likeness))
        best = np.argpartition(-likeness, most - 1)[:most]
        return [self._ids[index] for index in best[np.argsort(-likeness[best])]]
