"""A store behind HTTP, in the shape of OpenAI's vector store search: `POST {url}/vector_stores/{id}/search`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from gateway.errors import RetrievalFailed
from gateway.retrieval.filters import Filter
from gateway.retrieval.passage import Passage, Results
from gateway.retrieval.rule import PassageStore

_MOST_BYTES = 4_194_304


class _Content(msgspec.Struct):
    text: str = ""


class _Found(msgspec.Struct):
    file_id: str = ""
    filename: str = ""
    score: float = 0.0
    attributes: dict[str, Any] | None = None
    content: list[_Content] = []


class _Page(msgspec.Struct):
    data: list[_Found]


class HttpSearch:
    """One store's client; its connections are kept between searches."""

    def __init__(self, store: PassageStore) -> None:
        self._store = store
        key = store.api_key
        self._client = httpx.AsyncClient(
            headers={} if key is None else {"authorization": f"Bearer {key.reveal()}"},
            timeout=store.timeout_s,
            follow_redirects=False,
            trust_env=False,
        )
        self._url = f"{store.url}/vector_stores/{quote(store.id, safe='')}/search"

    def version(self) -> str:
        return self._store.version

    async def search(self, query: str, most: int, filters: object, test: Filter | None) -> Results:  # noqa: ARG002 as in Search
        """Raises RetrievalFailed: it did not answer in time, or not as it should."""
        body: dict[str, object] = {"query": query, "max_num_results": most}
        if filters is not None:
            body["filters"] = filters
        try:
            async with self._client.stream("POST", self._url, json=body) as response:
                data = await self._read(response)
            page = msgspec.json.decode(data, type=_Page)
        except (httpx.HTTPError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._failed(type(error).__name__) from error
        return Results(tuple(_passages(page))[:most], self._store.version)

    async def close(self) -> None:
        await self._client.aclose()

    async def _read(self, response: httpx.Response) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise self._failed(f"status {response.status_code}")
        data = bytearray()
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > _MOST_BYTES:
                raise self._failed(f"more than {_MOST_BYTES:,} bytes")
        return bytes(data)

    def _failed(self, what: str) -> RetrievalFailed:
        return RetrievalFailed(f"store `{self._store.name}` did not answer a search as it should: {what}")


def open_search(store: PassageStore, _state: Path, _model: Callable[[], object]) -> HttpSearch:
    """The search of one store of policy's."""
    return HttpSearch(store)


def _passages(page: _Page) -> list[Passage]:
    found: list[Passage] = []
    for position, one in enumerate(page.data):
        attributes = {
            name: value for name, value in (one.attributes or {}).items() if isinstance(value, str | int | float | bool)
        }
        text = "\n".join(part.text for part in one.content if part.text)
        if text:
            source = one.filename or one.file_id
            found.append(
                Passage(
                    id=f"{one.file_id or source}#{position}",
                    source=source,
                    text=text,
                    score=one.score,
                    attributes=attributes,
                )
            )
    return found
