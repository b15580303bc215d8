"""What a backend is asked, and what every backend can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.inference.deployment import Deployment
from gateway.inference.events import Emit
from gateway.inference.request import InferenceRequest
from gateway.telemetry.record import AttemptRecord


@dataclass(slots=True, kw_only=True)
class Call:
    """One attempt. The backend writes its timings and tokens into `record`."""

    request: InferenceRequest
    deployment: Deployment
    max_tokens: int | None
    """Most tokens the answer may have; None: what the request says."""
    tenant: str
    weight: float = 1.0
    """The tenant's part of a busy backend, as against others'."""
    record: AttemptRecord
    deadline: float
    """The event loop's time at which the whole request has to be over."""
    first_token_within_s: float | None = None
    """The edge refuses at once when it predicts its first token later than this."""
    isolated: bool = False
    """The edge shares no prefix of this tenant's prompts with others."""
    background: bool = False
    """Nobody waits for the answer: those that somebody waits for come first."""
    traceparent: str | None = None
    """W3C trace context of this request, to be continued by the backend."""


class BackendClient(Protocol):
    """A backend that can be asked."""

    async def answer(self, call: Call, emit: Emit) -> None:
        """Emit one answer's events, in the order that `inference.events` describes.

        Raises:
            BackendError, EdgeError: the answer failed; events emitted until then stand.
        """

    async def close(self) -> None:
        """End all connections. A call that still runs fails."""

    async def retire(self) -> None:
        """Close as soon as no call runs any more."""
