"""One client for each backend of the policy, as long as a policy that has it may be in use."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Protocol, Self

from gateway.backends.call import BackendClient, Call
from gateway.backends.edge import EdgeBackend
from gateway.backends.edges import Edges
from gateway.backends.extra_requests import ExtraRequests
from gateway.backends.health import Health
from gateway.backends.kept import Kept
from gateway.backends.leftovers import Leftovers
from gateway.backends.meaning import Meaning
from gateway.backends.minilm import MiniLMBackend
from gateway.backends.openai import OpenAIBackend
from gateway.backends.places import Load
from gateway.backends.scoring import score
from gateway.edge.shared_minilm import SharedMiniLM
from gateway.errors import EdgeUnavailable
from gateway.inference.deployment import Backend


class Trust(Protocol):
    """What was learnt of how far to trust the edge's model, by its fingerprint; None where nothing was."""

    def estimate(self, fingerprint: str, values: Sequence[float] | None) -> float | None:
        """How likely an answer with these features is good, 0..1."""

    def threshold(self, fingerprint: str, target_error: float) -> float | None:
        """The least estimate from which on no more than `target_error` of the answers are not good."""


class Backends:
    """Hands out clients. Two backends that differ in anything, a key or a limit, have two clients."""

    def __init__(
        self,
        edges: Edges,
        trust: Trust | None = None,
        *,
        health: Health | None = None,
        minilm: SharedMiniLM | None = None,
    ) -> None:
        """`health` knows how their deployments are, `minilm` is the worker's, closed by whoever made it."""
        self.health = health or Health(time.monotonic)
        self.extra = ExtraRequests()
        """How many more requests may be sent than came."""
        self.kept = Kept(time.monotonic)
        """How many drafts their scores let stand lately."""
        self._minilm = minilm or SharedMiniLM()
        self.meaning = Meaning(self._minilm)
        self.edges = edges
        self.leftovers = Leftovers()
        self._trust = trust
        self._clients: dict[Backend, OpenAIBackend | MiniLMBackend] = {}
        self._leaving: list[OpenAIBackend | MiniLMBackend] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leftovers.close()
        for client in (*self._clients.values(), *self._leaving):
            await client.close()
        self._clients.clear()
        self._leaving.clear()

    def estimate(self, edge: Backend, found: Sequence[float] | None) -> float | None:
        """How likely an answer of this edge with these features is good, 0..1; None where that was never learnt."""
        client = self.edges.of(edge)
        if self._trust is None or client is None:
            return None
        return self._trust.estimate(client.status.fingerprint, found)

    def threshold(self, edge: Backend, target_error: float) -> float | None:
        """From which estimate on at most `target_error` (0..1) of its answers are not good; None: not known."""
        client = self.edges.of(edge)
        if self._trust is None or client is None:
            return None
        return self._trust.threshold(client.status.fingerprint, target_error)

    def client(self, backend: Backend) -> BackendClient:
        """The client of `backend`, made at its first use.

        Raises:
            EdgeUnavailable: the edge is switched off, or has not loaded this model.
        """
        if backend.type == "edge":
            edge = self.edges.of(backend)
            if edge is None:
                raise EdgeUnavailable(self.edges.why_not(backend))
            return EdgeBackend(edge)
        return self._made(backend)

    def remote(self, backend: Backend) -> OpenAIBackend:
        """The client of a backend that is asked over HTTP."""
        client = self._made(backend)
        if not isinstance(client, OpenAIBackend):
            raise TypeError(f"{backend.name} is not asked over HTTP")
        return client

    def _made(self, backend: Backend) -> OpenAIBackend | MiniLMBackend:
        client = self._clients.get(backend)
        if client is None:
            here = backend.type == "minilm"
            client = MiniLMBackend(backend, self._minilm) if here else OpenAIBackend(backend)
            self._clients[backend] = client
        return client

    async def score(self, call: Call, text: str) -> tuple[float, ...]:
        """The log-probabilities that the call's deployment gives the tokens of `text` as the answer.

        Raises:
            BackendError: it gives none.
        """
        return await score(self.client(call.deployment.backend), call, text)

    @property
    def loads(self) -> dict[str, Load]:
        """By backend that limits how many are asked at once: how many may be, are, and wait."""
        return {backend.name: load for backend, client in self._clients.items() if (load := client.load) is not None}

    async def retire(self, in_use: Collection[Backend]) -> None:
        """Close the clients of backends that are not in `in_use`, each when its last call is over."""
        self._leaving = [client for client in self._leaving if client.active]
        for backend in [backend for backend in self._clients if backend not in in_use]:
            client = self._clients.pop(backend)
            self._leaving.append(client)
            await client.retire()
