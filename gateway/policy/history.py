"""The last good policies, kept in the state folder: every version that was in force, as its files were then.

    state/policies/20261123T024350-1a2b3c4d5e6f/*.yaml

`firstdraft policy rollback` writes one of them back to the policy folder, where the running gateway finds it.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.policy.document import policy_files

MOST_KEPT = 20
_REPLACED = "replaced"


class Kept(NamedTuple):
    """A version that was in force."""

    version: str
    at: str
    """When it came into force, in UTC, as in 20261123T024350."""
    folder: Path

    def sources(self) -> dict[str, bytes]:
        """Its files by name. Raises OSError."""
        return {file.name: file.read_bytes() for file in policy_files(self.folder)}


class PolicyHistory:
    """The versions kept in one state folder. File I/O: not for the event loop."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "policies"

    def keep(self, version: str, sources: Mapping[str, bytes]) -> None:
        """Keep a version that came into force now; the oldest goes. Raises OSError."""
        newest = self.kept()[:1]
        if newest and newest[0].version == version and newest[0].sources() == sources:
            return
        self._write(f"{_now()}-{version}", sources)
        for old in self.kept()[MOST_KEPT:]:
            shutil.rmtree(old.folder, ignore_errors=True)

    def kept(self) -> list[Kept]:
        """All that are kept, the newest first."""
        try:
            names = sorted((entry.name for entry in self._folder.iterdir() if entry.is_dir()), reverse=True)
        except OSError:
            return []
        split = [(name, *name.partition("-")) for name in names if not name.startswith(".") and name[0].isdigit()]
        return [Kept(version, at.partition(".")[0], self._folder / name) for name, at, _, version in split if version]

    def choose(self, directory: Path, version: str | None) -> Kept | None:
        """The version of that name, or the last good one that is not what `directory` holds now. Raises OSError."""
        kept = self.kept()
        if version is not None:
            return next((one for one in kept if one.version == version), None)
        present = {file.name: file.read_bytes() for file in policy_files(directory)}
        return next((one for one in kept if one.sources() != present), None)

    def restore(self, kept: Kept, directory: Path) -> Path | None:
        """Put the files of `kept` in the place of those in `directory`. Raises OSError.

        What is replaced is kept too; where, is returned (None: there was nothing).
        """
        sources = kept.sources()
        present = {file.name: file.read_bytes() for file in policy_files(directory)} if directory.is_dir() else {}
        replaced = self._write(f"{_REPLACED}-{_now()}", present) if present else None
        directory.mkdir(parents=True, exist_ok=True)
        # First all that could fail, then the renames: a watcher sees the old files or, an instant later, the new.
        staged = [(directory / f".{name}.restored", directory / name) for name in sources]
        try:
            for (temporary, _), data in zip(staged, sources.values(), strict=True):
                temporary.write_bytes(data)
            for temporary, target in staged:
                temporary.replace(target)
        finally:
            for temporary, _ in staged:
                temporary.unlink(missing_ok=True)
        for name in present.keys() - sources.keys():
            (directory / name).unlink()
        return replaced

    def _write(self, name: str, sources: Mapping[str, bytes]) -> Path:
        """Write a folder so that it is there as a whole or not at all."""
        temporary, target = self._folder / f".{name}", self._folder / name
        temporary.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            for file, data in sources.items():
                (temporary / file).write_bytes(data)
            temporary.rename(target)
        finally:
            with contextlib.suppress(OSError):
                shutil.rmtree(temporary)
        return target


def _now() -> str:
    """Sorts as time goes on; the nanoseconds tell two of one second apart."""
    ns = time.time_ns()
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(ns // 10**9))}.{ns % 10**9:09d}"
