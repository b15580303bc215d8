"""Bodies that come again: what was decoded once is not decoded again.

Identical prompts are what the cache of answers lives on, and decoding is half the work of finding one. Kept for each
tenant apart: how fast a body is decoded must not tell one tenant what another sent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from gateway.inference.request import InferenceRequest

_MOST_BYTES = 4_194_304
"""Of all bodies together; decoded, they take about three times as much, and a kilobyte each."""
_MOST_BODIES = 1_000
_LONGEST = 16_384
"""Bytes of one body; a longer one seldom comes twice, and hashing it costs."""


class Repeats:
    """The bodies of a worker that were decoded last, the least recently used forgotten beyond a number of bytes."""

    def __init__(self, decode: Callable[[bytes], InferenceRequest]) -> None:
        self._decode = decode
        self._decoded: OrderedDict[tuple[str, bytes], InferenceRequest] = OrderedDict()
        self._bytes = 0

    def decode(self, tenant: str, body: bytes) -> InferenceRequest:
        """The request in `body`; raises what the decoder raises."""
        if len(body) > _LONGEST:
            return self._decode(body)
        key = (tenant, body)
        request = self._decoded.get(key)
        if request is not None:
            self._decoded.move_to_end(key)
            return request
        request = self._decoded[key] = self._decode(body)
        self._bytes += len(body)
        while self._bytes > _MOST_BYTES or len(self._decoded) > _MOST_BODIES:
            (_, oldest), _ = self._decoded.popitem(last=False)
            self._bytes -= len(oldest)
        return request
