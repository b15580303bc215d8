"""What is expected of a deployment for one request, from what it did before."""

from __future__ import annotations

import msgspec


class EdgeNow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One edge at this moment."""

    ready: bool = False
    reason: str = ""
    """Why it is not ready."""
    context_tokens: int = 0
    """What it holds, prompt and answer together; 0: not known."""
    wait_s: float = 0.0
    """How long a new request would wait there until its prompt is read."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """Of one deployment, for prompts of about one length. Times are in seconds."""

    first_token_s: float
    """Until the first token, with what is in flight there now."""
    per_token_s: float
    """For each further token."""
    in_flight_tokens: int = 0
    """Prompt tokens of this gateway's requests that wait there for their first token."""
    output_tokens: float | None = None
    """How long its answers usually are; None: not known."""
