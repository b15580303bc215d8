"""How many more requests are sent than were received: a bucket of tokens for each route that hedges.

Each request puts its share in (5 %: a twentieth), each extra request takes one out. What was not used is kept for
bursts, up to `_MOST`; so over any number of requests the extra ones are at most that share of them, and `_MOST`.
"""

from __future__ import annotations

_MOST = 10.0
_FIRST = 1.0


class ExtraRequests:
    """The buckets, by route. One for each worker."""

    def __init__(self) -> None:
        self._left: dict[str, float] = {}

    def earn(self, route: str, share: float) -> None:
        """A request came on this route."""
        self._left[route] = min(_MOST, self._left.get(route, _FIRST) + share)

    def take(self, route: str) -> bool:
        """One more is sent, if there is room for it; whether there is."""
        left = self._left.get(route, _FIRST)
        if left < 1:
            return False
        self._left[route] = left - 1
        return True
