"""A store in Qdrant, through its own client: a server at a URL, or its embedded form in a folder.

Texts are found by meaning: the query is embedded as the points were, by the embedder of this gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from gateway.errors import RetrievalFailed, SettingsError
from gateway.retrieval.filters import Filter
from gateway.retrieval.indexing import Embedder
from gateway.retrieval.passage import Passage, Results
from gateway.retrieval.rule import PassageStore

_FILTERED_CANDIDATES = 200


class QdrantSearch:
    """One collection's client. Raises SettingsError: the extra is not installed."""

    def __init__(self, store: PassageStore, embedder: Callable[[], Embedder], client: Any | None = None) -> None:  # noqa: ANN401 its library may be missing
        self._store = store
        self._embedder = embedder
        self._client = client or _connect(store)

    def version(self) -> str:
        return self._store.version

    async def search(self, query: str, most: int, filters: object, test: Filter | None) -> Results:  # noqa: ARG002 as in Search
        """Raises RetrievalFailed: it did not answer in time, or not as it should."""
        store = self._store
        try:
            async with asyncio.timeout(store.timeout_s):
                vector = (await asyncio.to_thread(lambda: self._embedder().embed([query])))[0]
                answer = await self._client.query_points(
                    store.id,
                    query=vector.tolist(),
                    limit=most if test is None else _FILTERED_CANDIDATES,
                    with_payload=True,
                )
        except Exception as error:
            # Whatever its transports raise (HTTP, gRPC, files): the store could not be searched.
            raise RetrievalFailed(f"store `{store.name}` could not be searched: {type(error).__name__}") from error
        found = [passage for point in answer.points if (passage := self._passage(point)) is not None]
        return Results(
            tuple(passage for passage in found if test is None or test(passage.attributes))[:most], store.version
        )

    async def close(self) -> None:
        await self._client.close()

    def _passage(self, point: Any) -> Passage | None:  # noqa: ANN401 its library may be missing
        payload = point.payload or {}
        text = payload.get(self._store.text_field)
        if not isinstance(text, str) or not text:
            return None
        return Passage(
            id=str(point.id),
            source=str(payload.get(self._store.source_field) or point.id),
            text=text,
            score=float(point.score),
            attributes={
                name: value
                for name, value in payload.items()
                if name != self._store.text_field and isinstance(value, str | int | float | bool)
            },
        )


def open_search(store: PassageStore, _state: Path, model: Callable[[], Embedder]) -> QdrantSearch:
    """The search of one store of policy's."""
    return QdrantSearch(store, model)


def _connect(store: PassageStore) -> Any:  # noqa: ANN401 its library may be missing
    try:
        library = import_module("qdrant_client")
    except ImportError:
        message = f"store `{store.name}` is in Qdrant, but its client is missing: pip install 'firstdraft[qdrant]'"
        raise SettingsError(message) from None
    key = None if store.api_key is None else store.api_key.reveal()
    if store.url.startswith(("http://", "https://")):
        return library.AsyncQdrantClient(url=store.url, api_key=key, timeout=max(1, round(store.timeout_s)))
    return library.AsyncQdrantClient(path=store.url)
