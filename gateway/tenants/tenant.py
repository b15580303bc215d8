"""Who asks, and who pays."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as policy names it. `labels` are added to each of its requests."""

    name: str
    region: str = ""
    labels: frozenset[str] = frozenset()


class KeyOwner(NamedTuple):
    """Whose an API key is, and until when it is taken (Unix time in seconds; None: for good)."""

    tenant: str
    name: str
    not_after: float | None = None


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an API key or a token stands for. `key` is the key's name, never the key; empty for a keyless request."""

    tenant: Tenant
    key: str = ""
    feature: str = ""
    """What a token says it is for; a client cannot say otherwise. Empty: it says nothing."""
    labels: tuple[str, ...] = ()
    """What a token adds to the labels of each request."""
    until: float | None = None
    """Unix time in seconds after which it stands for nobody; None: for good."""
