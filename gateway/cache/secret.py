"""The secret of all cache keys: made once and kept in the store, so that replicas find each other's answers.

A gateway that starts without the store makes one of its own, and takes the shared one once the store is back. A store
that was emptied is given back the one in use. What was kept under another one is a miss, until it expires.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import structlog

from gateway.errors import StoreUnavailable
from gateway.store.client import Store

_NAME = "cache-secret"
_BYTES = 32
_EVERY_S = 5.0


async def shared_secret(store: Store) -> bytes:
    """The one that replicas share; without the store, one of this process alone."""
    own = secrets.token_bytes(_BYTES)
    try:
        return _usable(await store.get_or_create(_NAME, own), own)
    except StoreUnavailable as error:
        structlog.get_logger().warning("cache_secret_is_local", reason=error.message)
        return own


async def follow_secret(store: Store, secret: bytes, on_other: Callable[[bytes], None]) -> None:
    """See again and again that the store has the secret, or take the store's. For ever."""
    while True:
        await asyncio.sleep(_EVERY_S)
        try:
            found = _usable(await store.get_or_create(_NAME, secret), secret)
        except StoreUnavailable:
            continue
        if found != secret:
            secret = found
            on_other(secret)
            structlog.get_logger().info("cache_secret_is_shared")


def _usable(found: bytes, otherwise: bytes) -> bytes:
    """What somebody else may have written there must not make every key fail."""
    return found if len(found) == _BYTES else otherwise
