"""Models from a hub of the Hugging Face kind: `hf://owner/repo/file.gguf`, or `hf://owner/repo@revision/file.gguf`.

By the hub's own client (the extra `hf`), which resumes what was cut and keeps what it has: a model that was fetched
once is loaded without a network. It is kept in the state folder, and checked against the hash that the hub names.

`HF_ENDPOINT` names another hub, `HF_TOKEN` a key for models that ask for one; both are read from the environment.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.errors import EdgeUnavailable

PREFIX = "hf://"
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+?))?/((?:[\w. -]+/)*[\w. -]+\.gguf)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_AGAIN_S = 30.0

Tell = Callable[[str], None]
"""Hears what is going on, in words."""


def fetch(name: str, folder: Path, tell: Tell) -> Path:
    """The file of this name, fetched unless it is there. Waits as long as the hub cannot be reached.

    Raises EdgeUnavailable: the name is none, the extra is missing, the hub refuses, or the file is not what it names.
    """
    parts = _NAME.fullmatch(name)
    if parts is None or ".." in name:
        raise EdgeUnavailable(f"{name[:200]} is no model of a hub: write hf://owner/repo/file.gguf")
    try:
        import huggingface_hub  # noqa: PLC0415 - an extra, and slow to import
        from huggingface_hub import errors  # noqa: PLC0415 - as above
    except ImportError as error:
        raise EdgeUnavailable(f"{name} needs the hub's client: pip install 'firstdraft[hf]'") from error
    repository, revision, file = parts.groups()
    asked: dict[str, Any] = {"repo_id": repository, "filename": file, "revision": revision, "cache_dir": folder}
    path = None
    while path is None:
        try:
            path = Path(huggingface_hub.hf_hub_download(**asked, tqdm_class=_bar(name, tell)))
        except errors.LocalEntryNotFoundError as error:
            tell(f"the hub of {name} cannot be reached; it is asked again every {_AGAIN_S:g} s: {_first_line(error)}")
            time.sleep(_AGAIN_S)
        except (errors.HfHubHTTPError, errors.HFValidationError) as error:
            raise EdgeUnavailable(f"{name} cannot be fetched: {_first_line(error)}") from error
        except OSError as error:
            raise EdgeUnavailable(f"{name} cannot be kept in {folder}: {error.strerror or error}") from error
    _check(name, path)
    return path


def _check(name: str, path: Path) -> None:
    """A large file's name in the hub's cache is its SHA-256. What does not match is removed, to be fetched again."""
    blob = Path(os.path.realpath(path))
    if _SHA256.fullmatch(blob.name) is None:
        return
    with blob.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != blob.name:
        blob.unlink()
        path.unlink(missing_ok=True)
        raise EdgeUnavailable(f"{name} is damaged: its SHA-256 is {found}, and should be {blob.name}")


def _bar(name: str, tell: Tell) -> type[Any]:
    """What the hub's client takes for a progress bar; tells each full percent."""
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore] # noqa: PLC0415 - comes with the extra

    class Bar(tqdm):  # type: ignore[misc,unused-ignore]
        """Draws nothing."""

        def __init__(self, *arguments: object, **options: object) -> None:
            options.pop("name", None)
            super().__init__(*arguments, **(options | {"disable": False, "file": _Nowhere()}))
            self._told = -1

        def update(self, n: float | None = 1) -> bool | None:
            done: bool | None = super().update(n)
            percent = int(100 * self.n / self.total) if self.total else 0
            if percent > self._told:
                self._told = percent
                tell(f"{name} is fetched: {percent} %")
            return done

    return Bar


class _Nowhere:
    def write(self, _text: str) -> int:
        return 0

    def flush(self) -> None:
        return


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
