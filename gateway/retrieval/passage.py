"""A piece of a document."""

from __future__ import annotations

import msgspec


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """Found by a search; `score` is comparable within one answer only, higher is better."""

    id: str
    """Unique in its store."""
    source: str
    """The document's name, such as its path below the indexed folder."""
    text: str
    score: float = 0.0
    position: int = 0
    """Where it stands in its document: passages of one document are in this order."""
    attributes: dict[str, str | float | bool] = {}
    """What filters may ask for."""


class Results(msgspec.Struct, frozen=True):
    """What a search gave, best first, and the version of the documents that it searched."""

    passages: tuple[Passage, ...]
    version: str = ""
