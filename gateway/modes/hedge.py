"""`hedge`: a second deployment is asked when the first is later than it usually is; the first answer wins.

    first asked ──its first content──▶ it answers
        ├──fails──▶ the next one is asked in its place (as without hedging)
        └──later than its own p95──▶ one more is asked beside it ──first content of either──▶ that one answers,
                                              │                                               the other is cancelled
                                              └──one fails──▶ the other goes on

"Later than usual" is the deployment's own p95 (or what the route says) of the time to the first token, or to the whole
answer where it is not streamed, as this gateway saw it for prompts of that length; until enough was seen, twice what
policy expects, or a default. One extra request at most, only if the route's budget of extra requests has room for it,
only on a deployment that is well and one of those that the route prefers, only if the tenant's budget has room for both
at once, and never when the client already sees a draft. (After Dean & Barroso, "The Tail at Scale", CACM 2013.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.errors import BackendError, EdgeError, FirstdraftError
from gateway.inference.deployment import Deployment
from gateway.inference.events import Emit, Event
from gateway.inference.usage import input_tokens_estimate
from gateway.modes import attempt
from gateway.modes.candidates import Candidate, Candidates
from gateway.modes.plan import Plan
from gateway.policy.compiled import HedgeRule
from gateway.tasks import error_of

_UNKNOWN_S = 2.0
"""Taken for late while nothing is known of a deployment; answers that are not streamed wait until something is."""
_EXPECTED_TIMES = 2.0
"""What policy expects is the usual: so many times as much is taken for late."""
_LEAST_S = 0.005


async def answer(plan: Plan, deployments: Sequence[Deployment], emit: Emit) -> None:
    """Let one of `deployments` give the final: in their order, with one more beside it where the first is late.

    Raises:
        FirstdraftError: as `attempt.answer`.
    """
    among = frozenset(at.id for at in plan.deployments[: plan.first_choices] if not at.is_edge)
    if plan.hedge is None or len(among) < 2:
        await attempt.answer(plan, deployments, emit)
        return
    plan.backends.extra.earn(plan.record.route, plan.hedge.extra)
    await _Race(plan, deployments, among, plan.hedge, emit).run()


class _Race:
    """One request's attempts that run at the same time: one, or two."""

    def __init__(
        self, plan: Plan, deployments: Sequence[Deployment], among: frozenset[str], rule: HedgeRule, emit: Emit
    ) -> None:
        self._plan = plan
        self._among = among
        self._rule = rule
        self._emit = emit
        self._candidates = Candidates(plan, deployments)
        self._running: dict[asyncio.Task[bool], str] = {}
        """Each with the id of its deployment."""
        self._hedge: asyncio.Task[bool] | None = None
        self._winner: asyncio.Task[bool] | None = None
        self._won_by = ""
        self._late_at: float | None = None
        self._fatal: FirstdraftError | None = None

    async def run(self) -> None:
        try:
            while self._running or await self._begin_next():
                done, _ = await asyncio.wait(
                    self._running, timeout=self._patience_s(), return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    await self._begin_hedge()
                for task in done:
                    if self._answered(task):
                        return
            raise self._fatal or self._candidates.failure
        finally:
            await self._stop()

    async def _begin_next(self) -> bool:
        """Ask the next deployment, where no other runs; False: there is none, or no other could do better."""
        candidate = None if self._fatal is not None else await self._candidates.next()
        if candidate is None:
            return False
        self._begin(candidate, is_hedge=False)
        after_s = self._late_after_s(candidate.deployment)
        self._late_at = None if after_s is None else asyncio.get_running_loop().time() + max(after_s, _LEAST_S)
        return True

    def _begin(self, candidate: Candidate, *, is_hedge: bool) -> None:
        async def pass_on(event: Event) -> None:
            self._win(task)
            await self._emit(event)

        work = attempt.try_on(self._plan, candidate, self._candidates, pass_on)
        task = asyncio.create_task(work, name=f"ask {candidate.deployment.id}")
        self._running[task] = candidate.deployment.id
        if is_hedge:
            self._hedge = task
            self._candidates.is_accompanied = True
            self._plan.record.hedge = "lost"  # until it wins

    def _win(self, task: asyncio.Task[bool]) -> None:
        """The first event that may be shown decides, and ends the other at once: it never gets to show one."""
        if self._winner is None:
            self._winner, self._won_by = task, self._running[task]
            for other in self._running:
                if other is not task:
                    other.cancel()

    def _patience_s(self) -> float | None:
        """Seconds until the one that runs is late; None: nothing would come of that."""
        if self._late_at is None or self._hedge is not None or self._winner is not None:
            return None
        return max(0.0, self._late_at - asyncio.get_running_loop().time())

    async def _begin_hedge(self) -> None:
        plan, self._late_at = self._plan, None
        if plan.record.draft_ttft_s is not None or not self._candidates.has_spare(self._among):
            return
        if not plan.backends.extra.take(plan.record.route):
            plan.record.hedge = "no_room"
            return
        candidate = await self._candidates.spare(self._among)
        if candidate is None:
            return
        if self._winner is None:
            self._begin(candidate, is_hedge=True)
        elif candidate.trial is not None:  # the first answered while the budget was asked
            candidate.trial.given_up()

    def _answered(self, task: asyncio.Task[bool]) -> bool:
        """What came of one that is over: it answered, or is out of the race.

        Raises:
            FirstdraftError: it failed in mid-answer, or in a way that ends the request.
        """
        del self._running[task]
        error = error_of(task)
        if task.cancelled():
            return False
        if error is None:
            return task.result()
        if task is self._winner or not isinstance(error, BackendError | EdgeError):
            raise error
        self._fatal = self._fatal or error
        return False

    def _late_after_s(self, deployment: Deployment) -> float | None:
        plan, rule = self._plan, self._rule
        if rule.after_s is not None:
            return rule.after_s
        if plan.observed is None:
            return None
        tokens, stream = input_tokens_estimate(plan.request), plan.request.stream
        usual_s = plan.observed.usual_s(deployment.id, tokens, stream=stream, share=rule.share)
        if usual_s is not None or not stream:
            return usual_s
        expected_s = plan.observed.expected_first_token_s(deployment.id)
        return _UNKNOWN_S if expected_s is None else _EXPECTED_TIMES * expected_s

    async def _stop(self) -> None:
        """End what still runs; what it used is settled by its own attempt."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for task in running:
            error_of(task)  # the request has its answer, or its error, already
        if self._winner is None:
            return
        if self._winner is self._hedge:
            self._plan.record.hedge = "won"
        for tried in self._plan.record.attempts:
            if tried.outcome == "cancelled" and tried.role == "final" and tried.deployment != self._won_by:
                tried.outcome = "lost"
