"""Building the index of a `files` store from a folder of documents.

What costs most, the embeddings, is made for new passages only: those of the version before are taken over by their
text. A folder in which nothing changed is not built again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from gateway.errors import SettingsError
from gateway.retrieval import splitting, words
from gateway.retrieval.index_folder import IndexFacts, IndexFolder
from gateway.retrieval.passage import Passage

_MOST_DOCUMENT_BYTES = 16_777_216
_AT_A_TIME = 64
"""Passages embedded between two reports."""


class Embedder(Protocol):
    """What makes vectors of length 1 from texts."""

    name: str

    def embed(self, texts: Sequence[str]) -> np.ndarray: ...


class Built(msgspec.Struct, frozen=True):
    """The outcome: what serves now, whether it was built anew, and what was left out and why."""

    facts: IndexFacts
    is_new: bool
    embedded: int
    skipped: tuple[str, ...]


def build(
    documents: Path,
    folder: IndexFolder,
    embedder: Embedder | None,
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Index all documents below a folder and make the result current. Searches go on meanwhile, on the version before.

    Raises:
        SettingsError: the folder cannot be read, or another process is building.
    """
    if not documents.is_dir():
        raise SettingsError(f"{documents}: is not a folder")
    folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(folder.path):
        skipped: list[str] = []
        passages = list(_passages(documents, skipped))
        version = _version(passages, embedder)
        current = folder.facts()
        if current is not None and current.version == version:
            return Built(current, is_new=False, embedded=0, skipped=tuple(skipped))
        building = folder.path / f"{version}.building"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        (building / "words").mkdir()
        words.write(building / "words", passages)
        (building / "ids.json").write_text(json.dumps([passage.id for passage in passages]), "utf-8")
        embedded = 0
        if embedder is not None:
            vectors, embedded = _vectors(passages, embedder, folder, progress)
            np.save(building / "vectors.npy", vectors)
            np.save(building / "texts.npy", _digests(passages))
        facts = IndexFacts(
            version=version,
            documents=len({passage.source for passage in passages}),
            passages=len(passages),
            embedder="" if embedder is None else embedder.name,
            built_at=time.time(),
        )
        (building / "facts.json").write_bytes(msgspec.json.encode(facts))
        shutil.rmtree(folder.path / version, ignore_errors=True)
        building.replace(folder.path / version)
        folder.make_current(version)
        return Built(facts, is_new=True, embedded=embedded, skipped=tuple(skipped))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with (path / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingsError(f"{path}: another process is building this index") from None
        yield


def _passages(documents: Path, skipped: list[str]) -> Iterator[Passage]:
    for path in _files(documents):
        source = path.relative_to(documents).as_posix()
        try:
            if path.stat().st_size > _MOST_DOCUMENT_BYTES:
                skipped.append(f"{source}: larger than {_MOST_DOCUMENT_BYTES:,} bytes")
                continue
            text = path.read_text("utf-8")
            source.encode()
        except (OSError, ValueError) as error:
            skipped.append(f"{source!a}: {'no UTF-8' if isinstance(error, ValueError) else error.strerror}")
            continue
        folder, _, _ = source.rpartition("/")
        for position, passage in enumerate(splitting.split(text, path.suffix.lower())):
            yield Passage(
                id=f"{source}#{position}",
                source=source,
                text=passage,
                position=position,
                attributes={"source": source, "folder": folder},
            )


def _files(documents: Path) -> Iterator[Path]:
    """In a stable order; not hidden ones, and nothing that a link leads to outside."""
    for here, folders, names in os.walk(documents):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(here) / name
            if path.suffix.lower() in splitting.SUFFIXES and not name.startswith(".") and not path.is_symlink():
                yield path


def _version(passages: Sequence[Passage], embedder: Embedder | None) -> str:
    digest = hashlib.sha256(f"{splitting.VERSION} {words.VERSION} {embedder.name if embedder else ''}".encode())
    for passage in passages:
        for part in (passage.id.encode(), passage.text.encode()):
            digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()[:16]


def _vectors(
    passages: Sequence[Passage],
    embedder: Embedder,
    folder: IndexFolder,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, int]:
    """The vectors of all passages, and how many had to be made."""
    known = _known_vectors(folder, embedder)
    digests = [digest.tobytes() for digest in _digests(passages)]
    missing = [index for index, digest in enumerate(digests) if digest not in known]
    made: dict[bytes, np.ndarray] = {}
    for start in range(0, len(missing), _AT_A_TIME):
        batch = missing[start : start + _AT_A_TIME]
        for index, vector in zip(batch, embedder.embed([passages[index].text for index in batch]), strict=True):
            made[digests[index]] = vector
        if progress is not None:
            progress(min(start + _AT_A_TIME, len(missing)), len(missing))
    rows = [known[digest] if digest in known else made[digest] for digest in digests]
    return np.asarray(rows, np.float32).reshape(len(rows), -1), len(missing)


def _known_vectors(folder: IndexFolder, embedder: Embedder) -> dict[bytes, np.ndarray]:
    current, facts = folder.current(), folder.facts()
    if current is None or facts is None or facts.embedder != embedder.name:
        return {}
    try:
        vectors, texts = np.load(current / "vectors.npy"), np.load(current / "texts.npy")
    except (OSError, ValueError):
        return {}
    return {text.tobytes(): vector for text, vector in zip(texts, vectors, strict=True)}


def _digests(passages: Sequence[Passage]) -> np.ndarray:
    hashes = b"".join(hashlib.sha256(passage.text.encode()).digest() for passage in passages)
    return np.frombuffer(hashes, np.uint8).reshape(len(passages), 32)
