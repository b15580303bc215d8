"""What all request codecs share: typed fields out of a body, and the sentences that name a wrong one."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from gateway.errors import InvalidRequest
from gateway.inference.request import DraftWish

RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
"""An object's members, each byte for byte."""
_PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,")
_Body = TypeVar("_Body", bound=msgspec.Struct)


def typed(value: dict[str, Any], kind: type[_Body]) -> _Body:
    """What `kind` reads of a body.

    Raises:
        InvalidRequest: a field is missing, of a wrong type or out of range; `param` is its path.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None


def _invalid(message: str) -> InvalidRequest:
    """Take the path out for `param`: msgspec says it in its sentence and nowhere else."""
    found = _PATH.match(message)
    what, path = (found["what"], found["path"]) if found else (message, None)
    if path is None:
        missing = re.search(r"(?:required|unknown) field `(\w+)`", what)
        return InvalidRequest(f"Invalid body: {what}", param=missing[1] if missing else None)
    param = path.removesuffix("[...]")
    return InvalidRequest(f"Invalid value for '{param}': {what}", param=param)


def draft_wish(value: object) -> DraftWish | None:
    """The body's field `draft`.

    Raises:
        InvalidRequest: it is none of its three words.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong_type("draft", "'off', 'frames' or 'reasoning'", value)
    try:
        return DraftWish(value)
    except ValueError:
        raise InvalidRequest("Invalid value for 'draft': use 'off', 'frames' or 'reasoning'", param="draft") from None


def wrong_type(param: str, expected: str, got: object) -> InvalidRequest:
    """The error for a value that is not what its field takes."""
    return InvalidRequest(f"Invalid type for '{param}': expected {expected}, got {_json_type(got)}", param=param)


def refuse_lookalikes(fields: dict[str, Any], known: frozenset[str], path: str = "") -> None:
    """Refuse a key that differs from a known one in case alone: backends written in Go would read it as that one.

    Raises:
        InvalidRequest: `param` is the key's path.
    """
    for key in fields:
        if key not in known and (meant := key.casefold()) in known:
            param = f"{path}.{key}" if path else key
            raise InvalidRequest(f"Unknown field '{param}': did you mean '{meant}'?", param=param)


def text_size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def text_of(fields: dict[str, Any], key: str, path: str, *, default: str | None = None) -> str:
    """The string under `key`; `default` where it is missing or null, if there is a default.

    Raises:
        InvalidRequest: it is no string.
    """
    value = fields.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise wrong_type(f"{path}.{key}" if path else key, "a string", value)
    return value


def object_of(value: object, path: str) -> dict[str, Any]:
    """An object, or InvalidRequest."""
    if not isinstance(value, dict):
        raise wrong_type(path, "an object", value)
    return value


def list_of(value: object, path: str) -> list[Any]:
    """An array, or InvalidRequest."""
    if not isinstance(value, list):
        raise wrong_type(path, "an array", value)
    return value


def data_of(url: str) -> tuple[str, str]:
    """Media type and base64 of a data URL; empty for any other."""
    found = _DATA_URL.match(url)
    return (found[1], url[found.end() :]) if found else ("", "")


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string" if value else "an empty string"
        case list():
            return "an array"
        case _:
            return "an object"
