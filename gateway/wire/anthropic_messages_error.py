"""Errors as Anthropic's API tells them."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import BackendRefused, FirstdraftError
from gateway.wire.openai_chat_error import told

_ENCODER = msgspec.json.Encoder()
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""https://docs.anthropic.com/en/api/errors; all other statuses are `api_error`."""


def encode_error(error: FirstdraftError, request_id: str) -> bytes:
    """The body for a client. Beside Anthropic's members it has the code, and the field that is to blame."""
    if isinstance(error, BackendRefused) and error.body is not None and is_error(error.body):
        return error.body
    known = told(error, request_id)
    shown: dict[str, Any] = {
        "type": _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error"),
        "message": known["message"],
    }
    shown |= {name: value for name in ("code", "param") if (value := known[name]) is not None}
    return _ENCODER.encode({"type": "error", "error": shown, "request_id": request_id})


def is_error(body: bytes) -> bool:
    """The body is an error object of this schema."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("type") == "error" and isinstance(value.get("error"), dict)
