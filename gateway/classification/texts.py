"""All text that a backend would get with a request, however the client's schema spreads it.

A backend gets the client's fields as they came, so these are read, and not what the gateway made of them: names, tool
definitions, tool calls and their results, schemas, fields that the gateway does not know. Base64 is not text.
"""

from __future__ import annotations

import re

import msgspec

from gateway.inference.request import InferenceRequest

_DECODER = msgspec.json.Decoder()
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_DATA_URI = re.compile(r"data:[^,]{0,200};base64,")
_SHORTEST_ENCODED = 1_024
"""Characters of the data of an image or a file. What is shorter is read: it may be a key."""
_MOST_TEXTS = 100_000
"""Of one request; more are not begun: gathering them would take longer than any sensible limit."""
_SMALLEST_NUMBER = 1_000_000
"""A number below has too few digits to be anybody's."""


class Texts(msgspec.Struct):
    """What was found to read."""

    texts: list[str] = []
    unread: bool = False
    """There is something that is not text: images, audio, files, base64."""


def texts_of(request: InferenceRequest) -> Texts:
    """Every string in the request's fields, keys of objects and large numbers included, in their order.

    Parts of one content come once each and once joined: a backend may put them together without a break.
    """
    found = Texts(texts=[], unread=bool(request.images or request.audio))
    try:
        for raw in request.fields.values():
            _collect(_DECODER.decode(raw), found)
    except RecursionError:
        found.unread = True
    return found


def _collect(field: object, found: Texts) -> None:
    """Add all text in one field. Without recursion: the depth of a body is not bounded by much."""
    texts = found.texts
    rest = [field]
    while rest:
        if len(texts) >= _MOST_TEXTS:
            found.unread = True
            return
        value = rest.pop()
        if isinstance(value, str):
            if len(value) >= _SHORTEST_ENCODED and _is_base64(value):
                found.unread = True
            elif value:
                texts.append(value)
        elif isinstance(value, dict):
            for key, member in reversed(value.items()):
                if member is not None and member is not True and member is not False:
                    rest.append(member)
                    rest.append(key)
        elif isinstance(value, list):
            rest.extend(reversed(value))
            parts = [part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str)]
            if len(parts) > 1:
                texts.append("".join(parts))
        elif isinstance(value, int | float) and abs(value) >= _SMALLEST_NUMBER:
            # Digit by digit: as a float a number of 19 digits would be another one, and one of 400 none at all.
            texts.append(str(value) if isinstance(value, int) else f"{value:.0f}")


def _is_base64(text: str) -> bool:
    start = _DATA_URI.match(text)
    return _ENCODED.fullmatch(text, start.end() if start else 0) is not None
