"""The list of models as Anthropic's API gives it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder()


def encode_models(names: Iterable[str], created: int) -> bytes:
    """All models on one page; `created` in Unix seconds."""
    data = [_model(name, created) for name in names]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return _ENCODER.encode({"data": data, "has_more": False, "first_id": first, "last_id": last})


def encode_model(name: str, created: int) -> bytes:
    """One model; `created` in Unix seconds."""
    return _ENCODER.encode(_model(name, created))


def _model(name: str, created: int) -> dict[str, Any]:
    at = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": name, "display_name": name, "created_at": at}
