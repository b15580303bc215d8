"""Results of searches, kept: in this process for a moment, in the store for longer.

The key covers who asks and with which rights, the documents' version, the embedder, the query (case and white space
aside), the filter and how many are wanted. A result is fresh for most of its life; near its end one request in several
searches anew, so that a popular query never finds its result gone (soft expiry, with jitter).
"""

from __future__ import annotations

import hashlib
import random
import time
import zlib
from collections import OrderedDict

import msgspec
import structlog

from gateway.cache.entry import EntryCodec
from gateway.errors import StoreUnavailable
from gateway.retrieval.passage import Results
from gateway.store.client import PREFIX, Store

_LOCAL_S = 5.0
_MOST_LOCAL = 2_000
_SOFT = 0.8
"""The share of its life after which a result may be searched anew."""
_MOST_BYTES = 1_000_000


class _Kept(msgspec.Struct, array_like=True, frozen=True):
    until: float
    """Unix time at which it is over, in seconds."""
    soft: float
    """Unix time from which on it may be searched anew."""
    results: Results


class FoundBefore:
    """One for all stores of a process. Store trouble is a miss, never an error.

    Args:
        store: where replicas share results.
        secret: of the keys, 64 bytes at most.
        codec: of what is written; encrypts it where the cache of answers is encrypted.
    """

    def __init__(self, store: Store, secret: bytes, codec: EntryCodec) -> None:
        self._store = store
        self.secret = secret
        self._codec = codec
        self._local: OrderedDict[str, tuple[float, _Kept]] = OrderedDict()
        self._random = random.Random()  # noqa: S311 spreads load, hides nothing

    def key(self, *parts: object) -> str:
        """The key of a search: everything that its result depends on."""
        data = msgspec.msgpack.encode(["found/1", *parts])
        return hashlib.blake2b(data, digest_size=32, key=self.secret).hexdigest()

    async def get(self, key: str) -> Results | None:
        """What was found, if it may still be given."""
        now = time.time()
        local = self._local.get(key)
        if local is not None and now < local[0]:
            return local[1].results if self._is_fresh(local[1], now) else None
        name = _name(key)
        try:
            data = await self._store.get(name)
            kept = None if data is None else msgspec.msgpack.decode(self._codec.open(data, name), type=_Kept)
        except (StoreUnavailable, ValueError, zlib.error) as error:
            structlog.get_logger().debug("search_not_found_before", reason=str(error))
            return None
        if kept is None or not self._is_fresh(kept, now):
            return None
        self._remember(key, kept, now)
        return kept.results

    async def put(self, key: str, results: Results, life_s: float) -> None:
        """Keep a result for about `life_s` seconds."""
        now = time.time()
        life_s *= self._random.uniform(0.9, 1.1)
        kept = _Kept(now + life_s, now + life_s * _SOFT, results)
        self._remember(key, kept, now)
        name = _name(key)
        try:
            data = self._codec.close(msgspec.msgpack.encode(kept), name)
            if len(data) <= _MOST_BYTES:
                await self._store.set(name, data, ttl_s=life_s)
        except (StoreUnavailable, ValueError) as error:
            structlog.get_logger().debug("search_not_kept", reason=str(error))

    def _is_fresh(self, kept: _Kept, now: float) -> bool:
        if now < kept.soft:
            return True
        # The nearer its end, the likelier somebody searches anew; the others still get it.
        return now < kept.until and self._random.random() > (now - kept.soft) / (kept.until - kept.soft)

    def _remember(self, key: str, kept: _Kept, now: float) -> None:
        self._local[key] = (min(kept.until, now + _LOCAL_S), kept)
        self._local.move_to_end(key)
        if len(self._local) > _MOST_LOCAL:
            self._local.popitem(last=False)


def _name(key: str) -> str:
    return f"{PREFIX}found:{key}"
