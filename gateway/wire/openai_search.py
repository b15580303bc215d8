"""OpenAI's vector store search: `POST /v1/vector_stores/{id}/search`, its body and its answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.errors import InvalidRequest
from gateway.inference.request import InferenceRequest, Message
from gateway.wire.fields import typed
from gateway.wire.json_body import read_object

_ENCODER = msgspec.json.Encoder()
_MOST_QUERIES = 8
_Query = Annotated[str, Meta(min_length=1, max_length=100_000)]


class Ranking(msgspec.Struct):
    """Which results are good enough."""

    score_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None


class Body(msgspec.Struct):
    """What is read of a body."""

    query: _Query | Annotated[list[_Query], Meta(min_length=1, max_length=_MOST_QUERIES)]
    max_num_results: Annotated[int, Meta(ge=1, le=50)] | None = None
    filters: dict[str, Any] | None = None
    ranking_options: Ranking | None = None
    rewrite_query: bool | None = None


class SearchRequest(msgspec.Struct, frozen=True):
    """What a client wants found."""

    queries: tuple[str, ...]
    most: int
    filters: dict[str, Any] | None
    least_score: float


class FoundText(msgspec.Struct, frozen=True):
    """One result."""

    id: str
    source: str
    score: float
    attributes: Mapping[str, str | float | bool]
    text: str


def decode_search(body: bytes) -> SearchRequest:
    """The search in a client's body. A query is never rewritten: `rewrite_query` changes nothing.

    Raises:
        InvalidRequest: not a JSON object, or a field is wrong; `param` is its path where there is one.
    """
    read = typed(read_object(body), Body)
    queries = (read.query,) if isinstance(read.query, str) else tuple(read.query)
    if not any(query.strip() for query in queries):
        raise InvalidRequest("Invalid value for 'query': it is empty", param="query")
    least = 0.0 if read.ranking_options is None else read.ranking_options.score_threshold or 0.0
    return SearchRequest(queries, read.max_num_results or 10, read.filters, least)


def as_prompt(search: SearchRequest) -> InferenceRequest:
    """The queries as a prompt, so that what is looked for in prompts is looked for in them."""
    text = "\n".join(search.queries)
    messages = msgspec.Raw(_ENCODER.encode([{"role": "user", "content": text}]))
    return InferenceRequest(surface="chat", model="", messages=(Message("user", text),), fields={"messages": messages})


def encode_found(search: SearchRequest, found: Iterable[FoundText]) -> bytes:
    """The page of results. There is never a second page."""
    data = [
        {
            "file_id": one.id,
            "filename": one.source,
            "score": one.score,
            "attributes": dict(one.attributes),
            "content": [{"type": "text", "text": one.text}],
        }
        for one in found
    ]
    return _ENCODER.encode(
        {
            "object": "vector_store.search_results.page",
            "search_query": search.queries,
            "data": data,
            "has_more": False,
            "next_page": None,
        }
    )
