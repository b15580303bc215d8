"""Errors in OpenAI's shape, both ways: what a backend says, and what a client is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.errors import BackendCredentials, BackendError, BackendRefused, FirstdraftError

_ENCODER = msgspec.json.Encoder()
_MESSAGE_LIMIT = 500
_WRONG = 400
_OWN_CREDENTIALS = frozenset({401, 403, 407})
"""With these a backend refuses the gateway's key, not the client's, and its text may quote that key."""


def encode_error(error: FirstdraftError, request_id: str) -> bytes:
    """The body for a client. A backend's own error passes unchanged; a fault of ours shows only the request id."""
    if isinstance(error, BackendRefused) and error.body is not None and not is_anthropic(error.body):
        return error.body
    return _ENCODER.encode({"error": told(error, request_id)})


def is_anthropic(body: bytes) -> bool:
    """An error object's JSON text is in Anthropic's schema, not in OpenAI's."""
    value = msgspec.json.decode(body)
    return isinstance(value, dict) and value.get("type") == "error"


def told(error: FirstdraftError, request_id: str) -> dict[str, Any]:
    """`message`, `type`, `param` and `code` of an error, as far as a client may know; a backend's own where it has."""
    message = error.message if error.safe else f"The gateway failed on this request. Its id is {request_id}."
    found = {"message": message, "type": error.type, "param": error.param, "code": error.code}
    if isinstance(error, BackendRefused) and error.body is not None:
        own = _error_object(msgspec.json.decode(error.body))
        found |= {name: own.get(name) for name in found if isinstance(own.get(name), str)}
    return found


def has_error(value: object) -> bool:
    """An object that is an error: OpenAI's `{"error": …}`, or the flat one of vLLM (`"object": "error"`)."""
    return isinstance(value, dict) and (bool(value.get("error")) or value.get("object") == "error")


def refused_in_answer(value: dict[str, Any], *, deployment: str) -> BackendError:
    """The error for an event or a body that `has_error` under a good status. A numeric code in it is its status."""
    error = _error_object(value)
    status = _status(error.get("code")) or _status(error.get("status")) or 502
    whole = {"message": "no message", "type": "backend_error", "param": None, "code": None, **error}
    return _refused(error, _ENCODER.encode({"error": whole}), status, deployment)


def refused_by_status(
    body: bytes,
    *,
    status: int,
    deployment: str,
    retry_after_s: float | None = None,
    passed_headers: Mapping[str, str] | None = None,
) -> BackendError:
    """The error for a response with an error status. Its body is kept, byte for byte, when it is an error object."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # Google's, of a request for a stream
        body = _ENCODER.encode(value)
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        refused = _refused(value["error"], body, status, deployment)
    elif isinstance(value, dict) and has_error(value):
        refused = _refused(_error_object(value), None, status, deployment)
    else:
        said = value if isinstance(value, dict) and "message" in value else {"message": "its body is no error object"}
        refused = _refused(said, None, status, deployment)
        # The API did not say that, but something in front of it: another deployment may have no such thing. (AWS's own
        # errors look like those of some proxies; that a request is wrong is said with 400.)
        refused.retryable = refused.retryable or status != _WRONG or said is not value
    if isinstance(refused, BackendRefused):
        refused.retry_after_s = retry_after_s
        refused.passed_headers = dict(passed_headers or {})
    return refused


def _refused(error: dict[str, Any], body: bytes | None, status: int, deployment: str) -> BackendError:
    name = deployment or "the backend"
    if status in _OWN_CREDENTIALS:
        message = f"{name} did not accept the gateway's credentials (its status: {status})"
        return BackendCredentials(message, deployment=deployment)
    said = error.get("message")
    if not isinstance(said, str) or not said:
        said = "no message"
    message = f"{name} answered with error {status}: {said[:_MESSAGE_LIMIT]}"
    return BackendRefused(message, status=status, body=body, deployment=deployment)


def _error_object(value: dict[str, Any]) -> dict[str, Any]:
    error = value.get("error") or value
    if isinstance(error, dict):
        return error
    return {"message": error if isinstance(error, str) else _ENCODER.encode(error).decode()}


def _status(code: object) -> int | None:
    if isinstance(code, str) and len(code) == 3 and code.isascii() and code.isdecimal():
        code = int(code)
    return code if type(code) is int and 400 <= code <= 599 else None
