"""How many requests a backend does well with at once, found out from how long prompts wait there. Pure.

    gradient = tolerance × usual / newest, from ½ to 1          limit ← limit × gradient + allowance, smoothed

What is compared is the time to the first token for each token of the prompt, with a constant for what a prompt costs
whatever its length. While it stays near its usual the limit grows by the allowance; when prompts begin to wait for each
other it shrinks, in proportion. A limit that is not nearly used says nothing and stays. A refusal for being busy, or a
first token that never came, takes a tenth off. (After the "gradient2" limit in Netflix' concurrency-limits, which took
it from TCP Vegas.)

"Usual" is what it takes when little else is there: it follows lower values soon, higher ones where the limit is hardly
used, and else so slowly that load which never lets up takes ten thousand answers to be taken for normal.
"""

from __future__ import annotations

FIRST_LIMIT = 20
_TOLERANCE = 1.5
_ALLOWANCE = 4.0
_SMOOTHING = 0.2
_NEWEST_WEIGHT = 1 / 5
_USUAL_DOWN, _USUAL_IDLE, _USUAL_LOADED = 1 / 20, 1 / 100, 1 / 10_000
_USED_FROM = 0.5
_PROMPT_CONSTANT = 200
"""Tokens that are added to each prompt: a short one takes a step of the model as well."""


class Gradient:
    """One backend's limit, from 1 to `most`."""

    __slots__ = ("_limit", "_most", "_newest", "_usual")

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(most, FIRST_LIMIT))
        self._usual: float | None = None
        self._newest = 0.0

    @property
    def limit(self) -> int:
        """Requests at once."""
        return max(1, int(self._limit))

    def add(self, first_token_s: float, prompt_tokens: int, in_flight: int) -> None:
        """An answer has begun: how long after it was sent, and how many were in flight there."""
        value = first_token_s / (max(0, prompt_tokens) + _PROMPT_CONSTANT)
        if self._usual is None:
            self._usual = self._newest = value
            return
        self._newest += _NEWEST_WEIGHT * (value - self._newest)
        is_used = in_flight >= self._limit * _USED_FROM
        rises = _USUAL_LOADED if is_used else _USUAL_IDLE
        self._usual += (rises if self._newest > self._usual else _USUAL_DOWN) * (self._newest - self._usual)
        if not is_used:
            return
        gradient = max(0.5, min(1.0, _TOLERANCE * self._usual / max(self._newest, 1e-9)))
        wanted = self._limit * gradient + _ALLOWANCE
        self._set(self._limit * (1 - _SMOOTHING) + wanted * _SMOOTHING)

    def refused(self) -> None:
        """The backend said that it is too busy, or did not begin in its time."""
        self._set(self._limit * 0.9)

    def _set(self, limit: float) -> None:
        self._limit = min(float(self._most), max(1.0, limit))
