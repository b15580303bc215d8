"""Who asks, and who pays."""

from __future__ import annotations

import msgspec


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as policy names it. `labels` are added to each of its requests."""

    name: str
    region: str = ""
    labels: frozenset[str] = frozenset()


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an API key stands for. `key` is the key's name, never the key; empty for a keyless request."""

    tenant: Tenant
    key: str = ""
