"""A tenant as the store has it. Data; no I/O."""

from __future__ import annotations

from typing import Any

import msgspec


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key: its name, its SHA-256 in hex, and until when it works (Unix time; None: for good)."""

    name: str
    sha256: str
    created: int
    not_after: float | None = None


class StoredTenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant. `spec` is what a policy file would say of it, but for its keys."""

    spec: dict[str, Any] = {}
    keys: tuple[StoredKey, ...] = ()
    disabled: bool = False
    deleted: bool = False
    """A record that says so, so that nobody who missed it brings the tenant back."""
    created: int = 0
