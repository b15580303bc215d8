"""Errors as Anthropic's API tells them."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import BackendRefused, FirstdraftError
from gateway.wire.openai_chat_error import is_anthropic, told

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
    if isinstance(error, BackendRefused) and error.body is not None and is_anthropic(error.body):
        return error.body
    known = told(error, request_id)
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    if isinstance(error, BackendRefused) and known["type"] in _TYPES.values():
        kind = known["type"]  # the backend's own word, which an error inside a stream has no status for
    shown: dict[str, Any] = {
        "type": kind,
        "message": known["message"],
    }
    shown |= {name: value for name in ("code", "param") if (value := known[name]) is not None}
    return _ENCODER.encode({"type": "error", "error": shown, "request_id": request_id})
