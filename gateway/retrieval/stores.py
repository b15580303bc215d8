"""All passage stores of the policy, and searching them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from gateway.edge.shared_minilm import SharedMiniLM
from gateway.errors import RetrievalFailed
from gateway.retrieval.filters import Filter, read_filter
from gateway.retrieval.found import FoundBefore
from gateway.retrieval.passage import Results
from gateway.retrieval.rule import PassageStore, StoreType

_LONGEST_QUERY = 2_000
"""Characters; of a longer one the end is searched for, where a prompt asks its question."""

_MODULES: dict[StoreType, str] = {
    "files": "gateway.retrieval.files",
    "http": "gateway.retrieval.http",
    "qdrant": "gateway.retrieval.qdrant",
}
"""Imported with the first search that needs one: numpy and the clients would take 0.3 s of a gateway's start."""


class Search(Protocol):
    """One store that can be searched."""

    def version(self) -> str:
        """Of its documents, as far as it is known; no I/O beyond a look at a file."""

    async def search(self, query: str, most: int, filters: object, test: Filter | None) -> Results:
        """The best passages. `test` is what `filters` says, for stores that cannot filter by themselves.

        Raises:
            RetrievalFailed: the store could not be searched.
        """

    async def close(self) -> None:
        """End all connections."""


class Retrieval:
    """Searches for all requests of a worker; an async context manager, which closes all clients.

    Args:
        state: the gateway's state folder, where the indexes of `files` stores lie.
        found_before: the cache of results.
        minilm: the worker's, closed by whoever made it.
    """

    def __init__(self, state: Path, found_before: FoundBefore, minilm: SharedMiniLM | None = None) -> None:
        self._state = state
        self._found_before = found_before
        self._searches: dict[PassageStore, Search] = {}
        self._minilm = minilm or SharedMiniLM()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.retire(())

    async def retire(self, in_use: Collection[PassageStore]) -> None:
        """Close the clients of stores that policy no longer has."""
        for store in [store for store in self._searches if store not in in_use]:
            await self._searches.pop(store).close()

    async def search(
        self,
        store: PassageStore,
        query: str,
        *,
        most: int,
        tenant: str,
        rights: tuple[str, ...],
        filters: object = None,
    ) -> tuple[Results, bool]:
        """The best passages for a query, and whether they were found before.

        Args:
            store: where to search.
            query: any text.
            most: how many passages at most.
            tenant: who asks; what was found for one is not given to another.
            rights: what else decides what may be found, such as labels; in a stable order.
            filters: OpenAI's filter object, None: all.

        Raises:
            RetrievalFailed: the store could not be searched.
            InvalidRequest: the filter is none.
        """
        query = " ".join(query.split())[-_LONGEST_QUERY:]
        test = read_filter(filters)
        search = self._searches.get(store)
        if search is None:
            search = self._searches[store] = self._opened(store)
        version = search.version()
        words = query if store.type == "http" else query.lower()  # the others look at no case
        asked = (tenant, list(rights), _place(store), version, store.embeddings, words, filters, most)
        key = self._found_before.key(*asked)
        found = await self._found_before.get(key) if store.cache_s else None
        if found is not None:
            return found, True
        try:
            async with asyncio.timeout(store.timeout_s):
                found = await search.search(query, most, filters, test)
        except TimeoutError:
            raise RetrievalFailed(f"store `{store.name}` did not answer within {store.timeout_s:g} s") from None
        # A version that became current meanwhile has another key: what the old one gave is not kept under it.
        if store.cache_s and found.version == version:
            await self._found_before.put(key, found, store.cache_s)
        return found, False

    def _opened(self, store: PassageStore) -> Search:
        search: Search = import_module(_MODULES[store.type]).open_search(store, self._state, self._minilm.loaded)
        return search


@functools.lru_cache(maxsize=256)
def _place(store: PassageStore) -> tuple[str, ...]:
    return (store.name, store.type, store.url, store.id, store.region, store.text_field, store.source_field)
