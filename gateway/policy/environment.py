"""`${NAME}`, `${NAME:-default}` and `file:PATH` in policy files, and which of them are secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from gateway.inference.deployment import Secret
from gateway.policy.mistakes import nearest

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_WHOLE_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-)?\}")
MOST_SECRET_BYTES = 65_536
_WHERE_KEYS_GO = "write `${NAME}` for an environment variable, or `file:PATH`; a key never stands in a policy"


class Environment:
    """Expands references of one load; remembers what was read, so that a change can be noticed."""

    def __init__(self, environ: Mapping[str, str], directory: Path) -> None:
        self._environ = environ
        self._directory = directory
        self.expanded: dict[str, str] = {}
        """Every variable that is no secret and what it stood for: part of the policy's version."""
        self.files: set[Path] = set()
        """Every file that a `file:` names."""

    def text(self, value: str) -> str:
        """`value` with its references expanded. Raises ValueError when one cannot be."""
        expanded = _REFERENCE.sub(lambda found: self._variable(found[1]), value)
        for reference in _REFERENCE.findall(value):
            self.expanded[reference] = self._variable(reference)
        if "${" in _REFERENCE.sub("", value):
            raise ValueError("`${` without its `}`; write `${NAME}` or `${NAME:-default}`")
        return expanded

    def secret(self, value: str) -> Secret | None:
        """The secret that `value` points at; None when it is allowed to be empty and is. Raises ValueError."""
        if value.startswith("file:"):
            found = self._file(value.removeprefix("file:").removeprefix("//"))
        elif _WHOLE_REFERENCE.fullmatch(value):
            found = self._variable(value[2:-1], default="")
        elif value.startswith("${") and ":-" in value:
            raise ValueError(f"a default would be the key itself, or `${{…}}` is misspelt: {_WHERE_KEYS_GO}")
        else:
            raise ValueError(f"this looks like the key itself: {_WHERE_KEYS_GO}")
        if not found.isascii() or not found.isprintable():
            raise ValueError("the key has characters that no header can carry; check for a line break in its middle")
        return Secret(found) if found else None

    def _variable(self, reference: str, default: str = "default") -> str:
        parts = _NAME.fullmatch(reference)
        if parts is None:
            raise ValueError(f"`${{{reference}}}` names no variable; write `${{NAME}}` or `${{NAME:-default}}`")
        found = self._environ.get(parts[1])
        if found:
            return found.strip()
        if parts[2] is not None:
            return parts[2]
        if found is None:
            near = nearest(parts[1], self._environ)
            meant = f"did you mean `{near[0]}`? Else set it" if near else "set it"
            raise ValueError(
                f"{parts[1]} is not set in the environment; {meant}, or write `${{{parts[1]}:-{default}}}`"
            )
        raise ValueError(f"{parts[1]} is empty in the environment; set it, or write `${{{parts[1]}:-}}` if it may be")

    def _file(self, name: str) -> str:
        if not name:
            raise ValueError("`file:` names no file; write `file:/run/secrets/backend-key`")
        path = self._directory / name
        self.files.add(path)
        try:
            with path.open("rb") as opened:
                data = opened.read(MOST_SECRET_BYTES + 1)
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or "not a path"
            raise ValueError(f"the key file {path} cannot be read: {reason}") from None
        if len(data) > MOST_SECRET_BYTES:
            raise ValueError(f"the key file {path} is too large to hold a key")
        try:
            found = data.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise ValueError(f"the key file {path} is not text") from None
        if not found:
            raise ValueError(f"the key file {path} is empty")
        return found
