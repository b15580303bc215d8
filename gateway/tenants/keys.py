"""API keys: made, hashed, and found in a request's headers.

A key is 256 random bits, so that a plain SHA-256 is enough to keep it: there is nothing to guess that a slow hash would
protect. Looking a hash up in a table needs no comparison in constant time either: what its timing shows is the hash of
a guess, which does not help the next guess.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping

from gateway.errors import Unauthenticated

KEY_PREFIX = "fd-"
"""So that people and secret scanners know a key when they see one."""
_RANDOM_BYTES = 32
"""43 characters of URL-safe base64."""


def make_key() -> tuple[str, str]:
    """A new key, and its hash. The key is shown once and kept nowhere."""
    plain = KEY_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return plain, hash_key(plain)


def hash_key(plain: str) -> str:
    """The SHA-256 of a key, as 64 lower-case hexadecimal digits. Any text has one, also one that is no key."""
    return hashlib.sha256(plain.encode("utf-8", "surrogateescape")).hexdigest()


def presented_key(headers: Mapping[str, str]) -> str | None:
    """The key that a request presents: `authorization: Bearer KEY`, or `x-api-key: KEY`; None if it presents none.

    `headers` is looked up with lower-case names. Another scheme than Bearer, and an empty key, count as none.

    Raises:
        Unauthenticated: both headers are there and differ: whichever won, somebody else might pay.
    """
    scheme, _, credentials = headers.get("authorization", "").strip().partition(" ")
    bearer = credentials.strip() if scheme.lower() == "bearer" else ""
    own = headers.get("x-api-key", "").strip()
    if bearer and own and bearer != own:
        raise Unauthenticated("Two different API keys were given, in authorization and in x-api-key: send one.")
    return bearer or own or None
