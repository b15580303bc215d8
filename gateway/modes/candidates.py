"""Whom to ask next: the plan's deployments in their order, those that are better left alone last.

Each is given out once. One that its breaker keeps shut is passed over, and given out after all others: the last that
is left is never shut out. One that said until when it will not answer is not asked before; the client gets its word.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

from gateway.backends.health import Trial
from gateway.errors import BackendError, EdgeUnsuitable, FieldUnsupported, FirstdraftError, NoDeployment
from gateway.inference.deployment import Deployment
from gateway.modes.plan import Plan
from gateway.telemetry.record import AttemptRecord


class Candidate(NamedTuple):
    """A deployment to be asked now. The edge has no trial: its supervisor knows how it is."""

    deployment: Deployment
    trial: Trial | None


class Candidates:
    """Gives out the deployments of one request, as far as the budget has room for each."""

    def __init__(self, plan: Plan, deployments: Sequence[Deployment]) -> None:
        self.failure: FirstdraftError = NoDeployment("no deployment is left to ask")
        """What the client is told when none is left."""
        self.is_accompanied = False
        """Two are asked at once: neither is the last hope."""
        self._plan = plan
        self._left = deque(deployments)
        self._passed_over: deque[Deployment] = deque()

    @property
    def none_left(self) -> bool:
        """Nobody else is asked, or could be."""
        return not self.is_accompanied and not self._left and not self._passed_over

    async def next(self) -> Candidate | None:
        """The next one; None: none is left."""
        while self._left:
            deployment = self._left.popleft()
            if deployment.is_edge:
                if await self._is_within_budget(deployment, None):
                    return Candidate(deployment, None)
            elif (trial := self._plan.backends.health.begin(deployment)) is None:
                self._passed_over.append(deployment)
            elif await self._is_within_budget(deployment, trial):
                return Candidate(deployment, trial)
        return await self._next_passed_over()

    async def _next_passed_over(self) -> Candidate | None:
        health = self._plan.backends.health
        while self._passed_over:
            deployment = self._passed_over.popleft()
            if (refusal := health.refusal(deployment)) is not None:
                self._plan.record.attempts.append(AttemptRecord(deployment=deployment.id, outcome="paused"))
                self.note(refusal)
                continue
            trial = health.begin_anyway(deployment)
            if await self._is_within_budget(deployment, trial):
                return Candidate(deployment, trial)
        return None

    def has_spare(self, among: Collection[str]) -> bool:
        """One of these (by id) is left, and well."""
        return any(self._is_spare(deployment, among) for deployment in self._left)

    async def spare(self, among: Collection[str]) -> Candidate | None:
        """The next of these that is well, to be asked beside another; None: there is none, or no room in the budget."""
        for deployment in self._left:
            if self._is_spare(deployment, among):
                trial = self._plan.backends.health.begin_anyway(deployment)
                if not await self._is_within_budget(deployment, trial):
                    return None  # beside the first; in its place there may be room
                self._left.remove(deployment)
                return Candidate(deployment, trial)
        return None

    def _is_spare(self, deployment: Deployment, among: Collection[str]) -> bool:
        return deployment.id in among and self._plan.backends.health.accepts(deployment)

    def note(self, failure: FirstdraftError) -> None:
        """One could not answer. What one is unable to do is no news when a backend's own trouble is known."""
        if not (isinstance(failure, EdgeUnsuitable | FieldUnsupported) and isinstance(self.failure, BackendError)):
            self.failure = failure.with_traceback(None)  # whose frames hold these candidates

    async def _is_within_budget(self, deployment: Deployment, trial: Trial | None) -> bool:
        is_within = False
        try:
            is_within = await self._plan.extend_hold(deployment)
        finally:
            if not is_within and trial is not None:
                trial.given_up()
        if not is_within:
            self._plan.record.attempts.append(AttemptRecord(deployment=deployment.id, outcome="over_budget"))
        return is_within
