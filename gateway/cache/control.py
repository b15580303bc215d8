"""What a client's `cache-control` header asks (RFC 9111, section 5.2.1), as far as a cached answer can obey it."""

from __future__ import annotations

import msgspec

_MOST_SECONDS = 31_536_000
_MOST_HEADER = 1_024


class CacheControl(msgspec.Struct, frozen=True, kw_only=True):
    """`no_store`: neither read nor write; `no_cache`: ask anew, then write; `max_age_s`: oldest answer, in seconds."""

    no_store: bool = False
    no_cache: bool = False
    max_age_s: int | None = None


_NONE = CacheControl()


def parse(header: str | None) -> CacheControl:
    """Read the header. Directives that are unknown or malformed say nothing, as the RFC wants."""
    if not header or len(header) > _MOST_HEADER:
        return _NONE
    directives = {}
    for directive in header.lower().split(","):
        name, _, value = directive.partition("=")
        directives[name.strip()] = value.strip().strip('"')
    age = directives.get("max-age", "")
    return CacheControl(
        no_store="no-store" in directives,
        no_cache="no-cache" in directives,
        max_age_s=min(int(age), _MOST_SECONDS)
        if age.isascii() and age.isdigit() and len(age) <= len(str(_MOST_SECONDS))
        else None,
    )
