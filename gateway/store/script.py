"""Lua that runs in the server as one step: nothing else happens between its first command and its last."""

from __future__ import annotations

import hashlib
from importlib import resources

_FLAGS = "#!lua flags=allow-oom\n"
"""A full memory must stop caches from growing, not budgets from being settled. Needs Valkey, or Redis 7."""


class Script:
    """One script's text, and the SHA-1 by which the server knows it."""

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = _FLAGS + text
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def read(cls, package: str, name: str, *files: str) -> Script:
        """Join the package's Lua `files`, in that order: what they share comes first, as local functions."""
        folder = resources.files(package)
        return cls(name, "\n".join((folder / file).read_text(encoding="utf-8") for file in files))
