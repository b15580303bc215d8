"""Tokens that were used and thrown away: nobody got them as an answer, nor as a draft that said something. Pure."""

from __future__ import annotations

from gateway.telemetry.record import AttemptRecord, RequestRecord

_USELESS_DRAFTS = frozenset({"dropped", "replaced"})
_NOT_WASTED = frozenset({"ok", "running", "cancelled", "paused", "over_budget"})


def thrown_away(record: RequestRecord) -> dict[str, int]:
    """By reason, where there is something: `draft` (dropped or replaced), `hedge` (the loser's), `failed`."""
    found: dict[str, int] = {}
    for attempt in record.attempts:
        why, tokens = waste(attempt, record.draft)
        if tokens:
            found[why] = found.get(why, 0) + tokens
    return found


def waste(attempt: AttemptRecord, draft: str) -> tuple[str, int]:
    """Why, and how many of one attempt's; `draft` is the verdict of the request. A client that left is no reason."""
    if attempt.role == "draft":
        made = attempt.output_tokens or len(attempt.logprobs)
        return "draft", made if draft in _USELESS_DRAFTS else 0
    tokens = attempt.input_tokens + attempt.output_tokens
    if attempt.outcome == "lost":
        return "hedge", tokens
    return "failed", 0 if attempt.outcome in _NOT_WASTED else tokens
