"""Responses and the turns that led to them: asked for again, gone on from, deleted, and gone after a week.

An entry holds all turns, so that going on takes one look-up however long the conversation is. It is named by a hash of
tenant and response: no tenant can name another's. Where the cache is encrypted at rest, so are these.

    entry = 1 (plain) or 2 (sealed) ‖ deflated JSON
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from typing import Protocol

import msgspec
import structlog

from gateway.errors import StoreUnavailable
from gateway.inference.conversation import Turn
from gateway.store.client import PREFIX, Store

KEPT_S = 7 * 86_400.0
"""How long a response is kept, in seconds, counted from when it was made."""
MOST_BYTES = 8 * 1024 * 1024
"""The largest conversation kept, as JSON: images and files count with all their data."""
_IN_THREAD_FROM = 131_072
"""Bytes; deflating more than this would hold up other requests."""


_PLAIN, _SEALED = b"\x01", b"\x02"


class Sealing(Protocol):
    """Encrypts what is kept, bound to its name."""

    def seal(self, data: bytes, name: str) -> bytes:
        """`data`, readable only with the key and under the same name."""

    def open(self, sealed: bytes, name: str) -> bytes:
        """What was sealed. Raises ValueError when it cannot be."""


class KeptResponse(msgspec.Struct, frozen=True):
    """One response as its client got it, and all turns up to and with it."""

    response: msgspec.Raw
    turns: tuple[Turn, ...]


_DECODER = msgspec.json.Decoder(KeptResponse)
_ENCODER = msgspec.json.Encoder()


class Conversations:
    """One for all requests of a worker."""

    def __init__(self, store: Store, sealer: Sealing | None = None) -> None:
        self._store = store
        self._sealer = sealer

    async def put(self, tenant: str, response_id: str, kept: KeptResponse) -> bool:
        """Keep a response. False: it is too large, or the store cannot; the client is told that it is not kept."""
        body = _ENCODER.encode(kept)
        if len(body) > MOST_BYTES:
            structlog.get_logger().warning("response_not_kept", reason="too large", bytes=len(body))
            return False
        name, data = _name(tenant, response_id), await _deflated(body)
        data = _PLAIN + data if self._sealer is None else _SEALED + self._sealer.seal(data, name)
        try:
            await self._store.set(name, data, ttl_s=KEPT_S)
        except StoreUnavailable as error:
            structlog.get_logger().warning("response_not_kept", reason=error.message)
            return False
        return True

    async def get(self, tenant: str, response_id: str) -> KeptResponse | None:
        """The tenant's response of that id; None: there is none, or no longer. Raises StoreUnavailable."""
        name = _name(tenant, response_id)
        data = await self._store.get(name)
        if data is None:
            return None
        try:
            return _DECODER.decode(zlib.decompressobj().decompress(self._opened(data, name), MOST_BYTES))
        except (zlib.error, ValueError) as error:  # msgspec's errors and bad UTF-8 are ValueErrors
            structlog.get_logger().warning("kept_response_unreadable", reason=str(error))
            return None

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Forget a response; False when there was none. Raises StoreUnavailable."""
        return bool(await self._store.command("DEL", _name(tenant, response_id)))

    def _opened(self, data: bytes, name: str) -> bytes:
        form, body = data[:1], data[1:]
        if form == _PLAIN:
            return body
        if form != _SEALED or self._sealer is None:
            raise ValueError("of another form, or sealed and no key is set")
        return self._sealer.open(body, name)


def _name(tenant: str, response_id: str) -> str:
    parts = msgspec.msgpack.encode((tenant, response_id))
    return f"{PREFIX}response:{hashlib.blake2b(parts, digest_size=20).hexdigest()}"


async def _deflated(body: bytes) -> bytes:
    if len(body) < _IN_THREAD_FROM:
        return zlib.compress(body, 1)
    return await asyncio.to_thread(zlib.compress, body, 1)
