"""The rules that every JSON body from outside must keep, and the sentences that say which one it broke.

What the gateway checks must be what the backend reads. A key given twice is read differently by different parsers
(first, last, both), so a body that has one anywhere is refused. It is found at the cost of a decode and an encode in C:

- A body that equals the canonical encoding of its own value has no key twice: the usual case, since SDKs send compact
  JSON, and scripts what `json.dumps` writes.
- Else the members are counted: outside strings, each colon belongs to one member. The canonical encoding has every
  member that survived; when the body has more, some were given twice.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from gateway.errors import InvalidRequest

_DECODER = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""Linear in any text: one that does not end goes to the end of the body, and is not begun again at each quote in it."""
_SIMPLE_BYTES = 1_048_576
"""Up to here a body takes a few milliseconds to read, whatever is in it."""
_MOST_OBJECTS = 50_000
_MOST_COMMAS = 1_000_000
_MOST_MEMBERS = 200_000
_MOST_STRINGS = 500_000
"""Bound what reading a large body costs, in which no other request is served. What stands in texts does not count."""
_NAMING_LIMIT_BYTES = 256 * 1024
"""Up to here a key that was given twice is named; a slow second reading of larger bodies is not worth the name."""


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`.

    Raises:
        InvalidRequest: no JSON, bad UTF-8, no object, nested too deep, a number out of range, a key given twice.
    """
    if len(body) > _SIMPLE_BYTES and _is_too_much(body):
        raise InvalidRequest("the body has too many members: no prompt needs so many, and others wait while it is read")
    try:
        value = _DECODER.decode(body)
        canonical = _ENCODER.encode(value)
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not valid UTF-8") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deep") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(_why_no_json(body, error)) from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    if not _is_canonical(body, canonical) and _members(canonical) != _members(body):
        key = _repeated_key(body)
        message = f"the key {key!r} is given twice" if key is not None else "a key is given twice"
        raise InvalidRequest(f"{message} in one object; give it once", param=key)
    return value


def _is_too_much(body: bytes) -> bool:
    """Known without reading it; what stands in strings is taken out only where it may be what was counted."""
    if not _has_too_many(body):
        return False
    bare, strings = _STRING.subn(b"", body, count=_MOST_STRINGS)
    return strings == _MOST_STRINGS or _has_too_many(bare)


def _has_too_many(text: bytes) -> bool:
    return text.count(b"{") > _MOST_OBJECTS or text.count(b",") > _MOST_COMMAS or text.count(b":") > _MOST_MEMBERS


def _why_no_json(body: bytes, error: msgspec.DecodeError) -> str:
    if not body.strip():
        return "the body is empty; send a JSON object"
    return f"the body is not valid JSON: {error}"


def _is_canonical(body: bytes, canonical: bytes) -> bool:
    """The body is that encoding, without spaces or with one after each comma and colon."""
    return canonical == body or msgspec.json.format(canonical, indent=0) == body


def _members(text: bytes) -> int:
    return _STRING.sub(b"", text).count(b":")


class _RepeatedKeyError(Exception):
    """Carries the first key that an object has twice out of the parser."""


def _refuse_repeated(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _RepeatedKeyError(key)
        seen.add(key)


def _repeated_key(body: bytes) -> str | None:
    """The name of a key that is given twice, for the message alone."""
    if len(body) > _NAMING_LIMIT_BYTES:
        return None
    try:
        json.loads(body, object_pairs_hook=_refuse_repeated)
    except _RepeatedKeyError as error:
        return str(error.args[0])[:64]
    except (ValueError, RecursionError):
        return None
    return None
