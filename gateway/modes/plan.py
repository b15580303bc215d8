"""What a mode is given: the request, where it may be answered, and where to write what happened."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from gateway.backends.observed import Observed
from gateway.backends.pool import Backends
from gateway.budgets.claim import Beside
from gateway.inference.deployment import Deployment
from gateway.inference.request import InferenceRequest
from gateway.policy.compiled import CascadeRule, HedgeRule, Mode, RefineRule
from gateway.telemetry.record import RequestRecord


class ExtendHold(Protocol):
    """Awaited before each try: False where the budget has no room for `target` beside what was tried already.

    `also` is what the try may use beside the answer: a prediction of which parts are rejected, a score.
    """

    async def __call__(self, target: Deployment, also: Beside | None = None) -> bool: ...


async def _within(target: Deployment, also: Beside | None = None) -> bool:  # noqa: ARG001 where nothing is held
    return True


@dataclass(slots=True, frozen=True, kw_only=True)
class Plan:
    """One admitted request: policy has decided, and its worst case is held.

    `deployments` are all that may give the final, best first; `draft` the edge deployment that drafts, if one does.
    `max_tokens` is the most tokens a choice of the final may have (None: the backend's own limit).
    """

    request: InferenceRequest
    mode: Mode
    deployments: tuple[Deployment, ...]
    draft: Deployment | None
    draft_max_tokens: int
    max_tokens: int | None
    cascade: CascadeRule | None = None
    """When the draft stands, in mode cascade."""
    hedge: HedgeRule | None = None
    """When a second deployment is asked beside the first; None: never."""
    first_choices: int = 0
    """How many of `deployments`, from the front, are what the route prefers: the others are fallback."""
    compares_meaning: bool = False
    """Draft and final are compared by meaning, too."""
    refine: RefineRule | None = None
    """What is done with a draft before the larger model is asked for an answer of its own."""
    tenant: str
    weight: float = 1.0
    """The tenant's part of a busy backend, as against others'."""
    traceparent: str | None
    backends: Backends
    record: RequestRecord
    started: float
    """`loop.time()` at the request's arrival, in seconds."""
    observed: Observed | None = None
    """Is told how long attempts take."""
    deadline: float
    """`loop.time()` at which the whole request is given up, in seconds."""
    draft_within_s: float | None = None
    """A draft whose first token would come later than this is not begun."""
    isolated: bool = False
    """What the edge has read for others must not serve this tenant, nor the other way round."""
    background: bool = False
    """Nobody waits for the answer."""
    extend_hold: ExtendHold = _within
    copy: str = ""
    """A draft's text, to be given as `prediction` to a deployment that takes one; what it costs more is held."""
    reading_on: list[asyncio.Task[None]] = field(default_factory=list)
    """Attempts whose answers are read to their end although nobody waits for them: what they used is known then."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of the response; what is added after its first event is not sent."""

    def elapsed_s(self) -> float:
        """Seconds since the request arrived."""
        return asyncio.get_running_loop().time() - self.started
