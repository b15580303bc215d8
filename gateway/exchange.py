"""One request on its way through the gateway, as the rooms above the modes see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.cache.control import CacheControl
from gateway.cache.prompts import Found
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.policy.compiled import CompiledPolicy
from gateway.routing.decision import Decision
from gateway.telemetry.record import RequestRecord
from gateway.tenants.tenant import Identity


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request on its way through; `headers` are its response headers, whole before the first event."""

    request: InferenceRequest
    identity: Identity
    policy: CompiledPolicy
    record: RequestRecord
    started: float
    """`loop.time()` at arrival, in seconds."""
    feature: str = ""
    labels: str = ""
    """What the client named in `x-firstdraft-labels`."""
    believed: Mapping[str, str] = field(default_factory=dict)
    """Headers that a trusted proxy set."""
    cache_control: CacheControl = field(default_factory=CacheControl)
    traceparent: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    draft_wish: DraftWish = DraftWish.OFF
    """How the draft is shown: the client's wish, else the route's; known once the decision is."""
    repeatable: Repeatable | None = None
    """Set when it was a hit of which nothing depends on the moment but what `Pipeline.holds` asks."""


@dataclass(slots=True, kw_only=True)
class Repeatable:
    """A hit that the same request would get again, as long as `Pipeline.holds` says so."""

    exchange: Exchange
    decision: Decision
    key: str
    found: Found
    decided_at: float
    """`loop.time()` when the decision was last made, in seconds."""

    def looks_like(self, now: Decision) -> bool:
        """A hit under this decision would look the same; in which order deployments stand, it does not show."""
        before = self.decision
        return (
            now.refusal is None
            and now.route == before.route
            and now.mode is before.mode
            and now.no_draft == before.no_draft
            and now.cache == before.cache
            and (now.deployments == before.deployments or set(now.deployments) == set(before.deployments))
        )
