"""How a URL's schema tells errors: known by the path, so that it holds for URLs that do not exist, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from gateway.errors import FirstdraftError
from gateway.wire import anthropic_messages, openai_chat
from gateway.wire.anthropic_schema import AnthropicError
from gateway.wire.openai_schema import Error

_MESSAGES = "/v1/messages"


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How errors are written, and the headers that say the request's id."""

    encode: Callable[[FirstdraftError, str], bytes]
    id_headers: tuple[str, ...]
    schema: type[msgspec.Struct]
    """What it looks like, for the document."""


OPENAI = ErrorShape(openai_chat.encode_error, ("x-request-id",), Error)
ANTHROPIC = ErrorShape(anthropic_messages.encode_error, ("x-request-id", "request-id"), AnthropicError)


def error_shape(path: str, headers: Mapping[str, str]) -> ErrorShape:
    """The shape for a path; where both schemas have it (`/v1/models`), for the client that says its API's version."""
    if path == _MESSAGES or path.startswith(_MESSAGES + "/"):
        return ANTHROPIC
    return ANTHROPIC if "anthropic-version" in headers and path.startswith("/v1/models") else OPENAI
