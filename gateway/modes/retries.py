"""Whether, and when, the same deployment is tried once more. Pure.

What failed for a reason that passes (a reset, a 500) may succeed a moment later; what was late, busy or does not take
our key will not. How long the wait is, is drawn from 0 to a limit that doubles with each try, so that those who failed
together do not come back together ("full jitter": Brooker, "Exponential Backoff And Jitter", 2015). The backend's own
word is obeyed: `x-should-retry`, and `retry-after` where the wait is short and nobody else could answer meanwhile.
"""

from __future__ import annotations

from gateway.errors import (
    BackendBroken,
    BackendCut,
    BackendError,
    BackendRefused,
    BackendUnreachable,
    EdgeError,
)

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0
"""The client waits too: a `retry-after` that is longer is the client's to obey."""
_TOO_MANY = 429


def again_after_s(
    error: BackendError | EdgeError, tried: int, *, most: int | None, is_alone: bool, draw: float
) -> float | None:
    """Seconds until the next try on the same deployment; None: none there.

    Args:
        error: what came of the last try.
        tried: the tries after the first one, so far.
        most: how many there may be; None: one, if no other deployment is left to ask.
        is_alone: no other deployment is left.
        draw: from 0 to below 1.
    """
    limit = (1 if is_alone else 0) if most is None else most
    if tried >= limit:
        return None
    jitter_s = draw * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**tried)
    if not isinstance(error, BackendRefused):
        return jitter_s if isinstance(error, BackendUnreachable | BackendBroken | BackendCut) else None
    said = error.passed_headers.get("x-should-retry")
    if said == "false" or not (error.retryable or said == "true"):
        return None
    if error.retry_after_s is not None:
        return error.retry_after_s + jitter_s if is_alone and error.retry_after_s <= LONGEST_WAIT_S else None
    return None if error.status == _TOO_MANY and said != "true" else jitter_s
