"""Which part of a list a client wants: `?after=` an object, `?limit=` so many."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from gateway.errors import InvalidRequest, NotFound


def wanted_of(http: web.Request, ids: Sequence[str]) -> list[str]:
    """The ids after the one that the client has last.

    Raises:
        NotFound: that one is not on the list.
    """
    after = http.query.get("after", "")
    if not after:
        return list(ids)
    if after not in ids:
        raise NotFound(f"There is no {after[:60]!r} on this list.", param="after")
    return list(ids[list(ids).index(after) + 1 :])


def limit_of(http: web.Request, *, default: int, most: int) -> int:
    """How many objects the client wants.

    Raises:
        InvalidRequest: it is no number, or too large.
    """
    given = http.query.get("limit", str(default))
    if not (given.isascii() and given.isdigit() and len(given) < 10 and 1 <= int(given) <= most):
        raise InvalidRequest(f"'limit' is from 1 to {most:,}.", param="limit")
    return int(given)
