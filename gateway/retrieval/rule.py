"""What policy says about retrieval: pure data, so that `policy` can hold it without reaching a network."""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.inference.deployment import Secret

StoreType = Literal["files", "http", "qdrant"]
WhenFails = Literal["answer", "reject"]


class PassageStore(msgspec.Struct, frozen=True, kw_only=True):
    """Where passages come from. Compiled from an entry of `stores:`."""

    name: str
    type: StoreType
    region: str = ""
    compliance: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    """Who may search it; empty: all."""
    url: str = ""
    """Of `http` (OpenAI's API, with `/v1`) and `qdrant` (or a folder, for its embedded form)."""
    id: str = ""
    """Of the vector store behind `http`; the collection of `qdrant`."""
    api_key: Secret | None = None
    embeddings: bool = False
    """`files`: search by meaning as well as by words. `qdrant` always does."""
    text_field: str = "text"
    """`qdrant`: where a point's payload has its text, and where the name of its source."""
    source_field: str = "source"
    version: str = ""
    """What changes when the documents behind `http` or `qdrant` do; `files` knows by itself."""
    timeout_s: float = 2.0
    cache_s: float = 300.0
    """How long results are kept in the store; 0: not at all."""


class RetrievalRule(msgspec.Struct, frozen=True, kw_only=True):
    """Compiled from a route's `retrieval:`."""

    store: str
    top_k: int = 4
    max_tokens: int = 2_000
    """Most tokens of all passages together, estimated at 4 bytes a token."""
    when_fails: WhenFails = "answer"
