"""Where the index of a `files` store lies, and which version of it is current.

    STATE/retrieval/STORE/
      current            the name of the version that serves
      VERSION/           named by a hash of the documents and of what was made of them; never changed once it is there
        words/             the lexical index (tantivy)
        vectors.npy        one row for each passage, where the store has embeddings
        facts.json         documents, passages, embedder, when it was built
        ids.json           the passages' ids, in the order of the rows

A new version is built beside the old one and then made current by one rename: readers never see half of it. The one
before is kept, for readers that have it open.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import msgspec

from gateway.errors import SettingsError

_CURRENT = "current"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class IndexFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was built."""

    version: str
    documents: int
    passages: int
    embedder: str
    """Empty: by words alone."""
    built_at: float
    """Unix time, in seconds."""


class IndexFolder:
    """The folder of one store. Raises SettingsError: the name is none."""

    def __init__(self, state: Path, store: str) -> None:
        if not _NAME.fullmatch(store):
            raise SettingsError(f"{store[:80]!r} is no name of a store; use letters, digits and . _ -")
        self.path = state / "retrieval" / store

    def current(self) -> Path | None:
        """The folder of the version that serves; None: nothing was built yet."""
        try:
            name = (self.path / _CURRENT).read_text("ascii").strip()
        except (OSError, ValueError):
            return None
        folder = self.path / name
        return folder if _NAME.fullmatch(name) and folder.is_dir() else None

    def stamp(self) -> tuple[int, int]:
        """Changes when another version becomes current; (0, 0) while there is none."""
        try:
            found = (self.path / _CURRENT).stat()
        except OSError:
            return 0, 0
        return found.st_ino, found.st_mtime_ns

    def facts(self) -> IndexFacts | None:
        """Of the version that serves."""
        folder = self.current()
        if folder is None:
            return None
        try:
            return msgspec.json.decode((folder / "facts.json").read_bytes(), type=IndexFacts)
        except (OSError, msgspec.MsgspecError):
            return None

    def make_current(self, version: str) -> None:
        """From now on this version serves; all but it and the one before are removed."""
        before = self.current()
        new = self.path / f"{_CURRENT}.{os.getpid()}"
        new.write_text(version, "ascii")
        new.replace(self.path / _CURRENT)
        kept = {version, *(() if before is None else (before.name,))}
        for entry in self.path.iterdir():
            if entry.is_dir() and entry.name not in kept:
                shutil.rmtree(entry, ignore_errors=True)
