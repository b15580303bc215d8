"""One request on its way through the gateway, as the rooms above the modes see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.cache.control import CacheControl
from gateway.cache.prompts import Found
from gateway.errors import InvalidRequest
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.modes.plan import Plan
from gateway.policy.compiled import CompiledPolicy
from gateway.routing.decision import Decision
from gateway.telemetry.record import RequestRecord
from gateway.tenants.tenant import Identity

_OWN_METADATA = frozenset({"labels", "feature"})
"""Members of `metadata` that the gateway reads; one that only looks like them could send data where it must not go."""
_FEATURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


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
    background: bool = False
    """Nobody waits for the answer: those that somebody waits for come first."""
    on_admitted: Callable[[Exchange, Plan], None] | None = None
    """Called when policy has decided and the worst case is held, before anything is asked."""

    def admitted(self, plan: Plan) -> Plan:
        """Tell whoever wants to know that this request will be answered as `plan` says."""
        if self.on_admitted is not None:
            self.on_admitted(self, plan)
        return plan


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


def feature_of(given: str, request: InferenceRequest) -> str:
    """The part of the tenant's product that asks: as a header says (`given`), else the request's metadata.

    Raises:
        InvalidRequest: it is no name, or metadata has a member that only looks like one of the gateway's.
    """
    for name in request.metadata:
        if name not in _OWN_METADATA and name.strip().lower() in _OWN_METADATA:
            message = f"metadata has {name[:40]!r}: write it as {name.strip().lower()!r}, or it would not count."
            raise InvalidRequest(message, param="metadata")
    return checked_feature(given or request.metadata.get("feature", ""))


def checked_feature(name: str) -> str:
    """A feature's name, or nothing.

    Raises:
        InvalidRequest: it is no name.
    """
    if name and not _FEATURE.fullmatch(name):
        message = "A feature's name has letters, digits, '_', '-' and '.', 64 characters at most."
        raise InvalidRequest(message, param="x-firstdraft-feature")
    return name
