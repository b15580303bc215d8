"""What a model file says about how a chat is written down."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Template:
    """The Jinja source (None: the file has none), and the words that begin and end a text."""

    source: str | None
    bos: str
    eos: str
