"""A chat completion that is fetched later: what is told of it until it is there, and when it is forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder()


def encode_pending(*, answer_id: str, created: int, model: str, draft: Mapping[str, Any] | None) -> bytes:
    """A completion without choices yet, and its draft where there is one."""
    pending: dict[str, Any] = {
        "id": answer_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [],
    }
    return _ENCODER.encode(pending if draft is None else pending | {"draft": draft})


def encode_deleted(answer_id: str) -> bytes:
    """The answer to a deletion."""
    return _ENCODER.encode({"object": "chat.completion.deleted", "id": answer_id, "deleted": True})
