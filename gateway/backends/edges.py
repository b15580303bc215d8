"""The edges of this gateway: one process for each model that the policy named when the gateway started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gateway.edge.client import EdgeClient
from gateway.inference.deployment import Backend, Deployment
from gateway.inference.prediction import EdgeNow


class Edges:
    """Clients by what their edge loads. What is loaded is settled at the start: a newer policy changes nothing here.

    A backend whose model is not loaded is not ready, and its reason says so: never is it served by another model.
    """

    def __init__(self, first: EdgeClient | None = None, others: Mapping[str, EdgeClient] | None = None) -> None:
        """`first` tells by itself what it loads."""
        self.first = first
        self._others = dict(others or {})

    def __iter__(self) -> Iterator[EdgeClient]:
        if self.first is not None:
            yield self.first
        yield from self._others.values()

    def of(self, backend: Backend) -> EdgeClient | None:
        """The client of the edge that has this backend's model; None when there is none."""
        found = self._others.get(backend.edge_model)
        if found is not None or self.first is None:
            return found
        loaded = self.first.status.model
        return self.first if not loaded or not backend.edge_model or loaded == backend.edge_model else None

    def why_not(self, backend: Backend) -> str:
        """Why there is none."""
        if self.first is None:
            return "the edge is switched off in this gateway"
        return f"{backend.edge_model} is not loaded: an edge loads what the policy names when the gateway starts"

    def trouble(self, backend: Backend) -> dict[str, str] | None:
        """Why the edge of this backend does not serve now, as `Health.report` says it of others; None: it does."""
        client = self.of(backend)
        if client is None:
            return {"state": "off", "reason": self.why_not(backend)}
        status = client.status
        return None if status.state == "warm" else {"state": status.state, "reason": status.reason or status.state}

    def now(self, deployments: Sequence[Deployment]) -> tuple[EdgeNow, dict[str, EdgeNow]]:
        """How the first of the policy's edges is, and how the others are, by id of deployment."""
        if not deployments:
            return EdgeNow(reason="the policy has no edge"), {}
        first, *others = deployments
        return self._now(first), {edge.id: self._now(edge) for edge in others}

    def _now(self, deployment: Deployment) -> EdgeNow:
        client = self.of(deployment.backend)
        if client is None:
            return EdgeNow(reason=self.why_not(deployment.backend))
        status = client.status
        return EdgeNow(
            ready=status.state == "warm",
            reason=status.reason or status.state,
            context_tokens=status.n_ctx,
            wait_s=client.wait_s,
        )
