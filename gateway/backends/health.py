"""How deployments are: what their attempts and their backends' checks say, for routing, attempts, metrics and people.

One for each worker. `unhealthy` is a fact of every decision (ranking asks what fails last, conditions may ask for it);
`begin` gives an attempt its `Trial`, or says that the deployment is better left alone. Nothing in here is ever the last
word: where nothing else is left, an attempt begins all the same (`begin_anyway`), unless the backend itself said until
when it will not answer (`refusal`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from gateway.backends.breaker import Breaker, Ticket
from gateway.errors import (
    BackendBusy,
    BackendCredentials,
    BackendError,
    BackendRefused,
    BackendTimeout,
    FirstdraftError,
)
from gateway.inference.deployment import Deployment

CHECKS_TO_FALL = 2
"""Checks in a row that have to fail before a backend is taken for down: one may be lost."""
_UNTOLD_PAUSE_S = 1.0
"""After a 429 that names no time: others are asked first for so long."""
_TOO_MANY = 429
_FAULTS = frozenset({408, 500, 501, 502, 503, 504, 520, 521, 522, 523, 524, 529})


def _nobody(_deployment: str, _state: str) -> None:
    return


@dataclass(slots=True)
class _Known:
    """What is known of one deployment."""

    backend: str
    breaker: Breaker = field(default_factory=Breaker)
    reason: str = ""
    """The code of the newest failure."""
    detail: str = ""
    """What went wrong then, for the log."""
    asked_at: float = -math.inf
    told: str = "closed"
    """The state that was logged and counted last."""
    refused: BackendRefused | None = None
    """The answer in which the backend named the time of its pause."""


class Trial:
    """One attempt's word on its deployment's health. Every trial ends exactly once; a second end changes nothing."""

    __slots__ = ("_health", "_known", "_ticket", "deployment")

    def __init__(self, health: Health, deployment: str, known: _Known, ticket: Ticket) -> None:
        self.deployment = deployment
        self._health = health
        self._known = known
        self._ticket = ticket

    def answers(self) -> None:
        """The first content is there."""
        self._known.breaker.answers(self._ticket)
        self._health.changed(self.deployment)

    def succeeded(self) -> None:
        """The answer is whole."""
        if not self._ticket.is_over:
            self._known.breaker.succeeded(self._ticket)
            self._health.changed(self.deployment)

    def given_up(self) -> None:
        """It ended for reasons that are not the deployment's."""
        if not self._ticket.is_over:
            self._known.breaker.given_up(self._ticket)
            self._health.changed(self.deployment)

    def failed(self, error: FirstdraftError) -> None:
        """It ended with this error, which says whose fault that is."""
        if self._ticket.is_over:
            return
        breaker, now, known = self._known.breaker, self._health.now(), self._known
        if _is_fault(error):
            known.reason = error.code or error.type
            known.detail = error.detail if isinstance(error, BackendError) else ""
            breaker.failed(self._ticket, now, at_once=isinstance(error, BackendCredentials))
        elif not isinstance(error, BackendRefused):
            breaker.given_up(self._ticket)
        elif error.status == _TOO_MANY:
            known.reason, known.refused = "rate_limited", None
            breaker.asked_for_time(self._ticket, now, error.retry_after_s or _UNTOLD_PAUSE_S)
        else:  # what is wrong is the request: the deployment works
            breaker.succeeded(self._ticket)
        if isinstance(error, BackendRefused) and error.retry_after_s and error.retryable:
            breaker.asked_for_time(self._ticket, now, error.retry_after_s)
            known.refused = error
        self._health.changed(self.deployment)


def _is_fault(error: FirstdraftError) -> bool:
    """The deployment's own trouble, which the next request may have as well."""
    if isinstance(error, BackendRefused):
        return error.status in _FAULTS
    if isinstance(error, BackendTimeout):
        return not error.is_ours
    return isinstance(error, BackendError) and not isinstance(error, BackendBusy)


class Health:
    """All deployments that were ever asked, and all backends that are checked.

    Args:
        now: seconds of a clock that only grows, as `time.monotonic`.
        on_change: is told of each change: the deployment's id, and its new state.
    """

    def __init__(self, now: Callable[[], float], on_change: Callable[[str, str], None] = _nobody) -> None:
        self.now = now
        self._on_change = on_change
        self._known: dict[str, _Known] = {}
        self._policys: Mapping[str, Deployment] = {}
        self._checks: dict[str, int] = {}
        """By backend, how many checks failed in a row."""
        self._why: dict[str, str] = {}
        """By backend that is down, what its check came to."""
        self._unhealthy: frozenset[str] = frozenset()
        self._good_until = -math.inf

    # --- for decisions ----------------------------------------------------------------------------------------

    def unhealthy(self) -> frozenset[str]:
        """The ids of all that is better not asked now. Made anew only when something changed or a time is over."""
        now = self.now()
        if now >= self._good_until:
            self._renew(now)
        return self._unhealthy

    def _renew(self, now: float) -> None:
        found, until = set(), math.inf
        for name, known in self._known.items():
            self._tell(name, known, now)
            if not self._accepts(known, now):
                found.add(name)
                until = min(until, known.breaker.changes_at(now))
        self._unhealthy, self._good_until = frozenset(found), until

    def _accepts(self, known: _Known, now: float) -> bool:
        return known.breaker.accepts(now) and not self.is_down(known.backend)

    def is_down(self, backend: str) -> bool:
        """Its checks say that it does not serve."""
        return self._checks.get(backend, 0) >= CHECKS_TO_FALL

    # --- for attempts -----------------------------------------------------------------------------------------

    def accepts(self, deployment: Deployment) -> bool:
        """An attempt is welcome there now."""
        return self._accepts(self._of(deployment), self.now())

    def begin(self, deployment: Deployment) -> Trial | None:
        """An attempt begins; None: it should not, as long as there is another deployment."""
        return self._trial(deployment.id, self._of(deployment)) if self.accepts(deployment) else None

    def begin_anyway(self, deployment: Deployment) -> Trial:
        """An attempt begins, because nothing else is left, or because it is one more on the same deployment."""
        return self._trial(deployment.id, self._of(deployment))

    def refusal(self, deployment: Deployment) -> BackendRefused | None:
        """What is told instead of asking a backend that said until when it will not answer; None: it may be asked."""
        known, now = self._of(deployment), self.now()
        if known.refused is None or not known.breaker.pause_left_s(now):
            return None
        said, left_s = known.refused, known.breaker.pause_left_s(now)
        message = f"{deployment.id} asked not to be called for another {math.ceil(left_s)} s"
        return BackendRefused(message, status=said.status, deployment=deployment.id, retry_after_s=left_s)

    def idle_s(self, deployment: Deployment) -> float:
        """Seconds since its newest attempt began; infinity: it was never asked."""
        return self.now() - self._of(deployment).asked_at

    def _trial(self, deployment: str, known: _Known) -> Trial:
        known.asked_at = now = self.now()
        trial = Trial(self, deployment, known, known.breaker.begin(now))
        self.changed(deployment)
        return trial

    def _of(self, deployment: Deployment) -> _Known:
        known = self._known.get(deployment.id)
        if known is None:
            known = self._known[deployment.id] = _Known(deployment.backend.name)
        return known

    def know(self, deployments: Mapping[str, Deployment]) -> None:
        """These are the policy's: all others are forgotten."""
        if deployments is self._policys:
            return
        self._policys = deployments
        before, self._known = self._known, {at.id: self._of(at) for at in deployments.values() if not at.is_edge}
        for name in before.keys() - self._known.keys():
            if before[name].told != "closed":
                self._on_change(name, "closed")  # nobody would tell it any more
        backends = {known.backend for known in self._known.values()}
        self._checks = {name: failed for name, failed in self._checks.items() if name in backends}
        self._good_until = -math.inf

    # --- for checks -------------------------------------------------------------------------------------------

    def checked(self, backend: str, failure: str) -> None:
        """A backend's check is over; `failure` says what was wrong, empty when nothing was."""
        failed_before = self._checks.get(backend, 0)
        self._checks[backend] = failed_before + 1 if failure else 0
        if failure:
            self._why[backend] = failure
        for name, known in self._known.items():
            if known.backend == backend:
                if not failure:
                    known.breaker.look_again(self.now())
                self.changed(name)
        if failed_before < CHECKS_TO_FALL <= self._checks[backend]:
            structlog.get_logger().warning("backend_down", backend=backend, reason=failure)
        elif failed_before >= CHECKS_TO_FALL and not failure:
            structlog.get_logger().info("backend_up", backend=backend)

    # --- for people -------------------------------------------------------------------------------------------

    def report(self) -> dict[str, dict[str, Any]]:
        """By deployment that is not known to be well: its state, why, and seconds until it may change by itself.

        One that failed and may be asked again (`half_open`) has to answer first, before people are told it is well.
        """
        now, found = self.now(), dict[str, dict[str, Any]]()
        self._renew(now)
        for name, known in sorted(self._known.items()):
            if name not in self._unhealthy and known.breaker.state(now) != "half_open":
                continue
            down = self.is_down(known.backend)
            found[name] = {
                "state": self._state(known, now),
                "reason": self._why[known.backend] if down else known.reason,
            }
            at = known.breaker.changes_at(now)
            if at < math.inf and not down:
                found[name]["for_s"] = round(at - now, 1)
        return found

    def changed(self, deployment: str) -> None:
        """Something happened there: tell it, and let the next decision look anew."""
        known = self._known.get(deployment)
        if known is not None and self._tell(deployment, known, self.now()):
            self._good_until = -math.inf

    def _state(self, known: _Known, now: float) -> str:
        return "down" if self.is_down(known.backend) else known.breaker.state(now)

    def _tell(self, deployment: str, known: _Known, now: float) -> bool:
        """Log and count the state, if it is another than was told last."""
        state = self._state(known, now)
        if state == known.told:
            return False
        known.told = state
        self._on_change(deployment, state)
        log = structlog.get_logger()
        match state:
            case "open":
                seconds = round(known.breaker.changes_at(now) - now, 1)
                more = {"detail": known.detail} if known.detail else {}
                log.warning("deployment_failing", deployment=deployment, reason=known.reason, for_s=seconds, **more)
            case "paused":
                seconds = round(known.breaker.pause_left_s(now), 1)
                log.info("deployment_paused", deployment=deployment, reason=known.reason, for_s=seconds)
            case "closed":
                log.info("deployment_healthy", deployment=deployment)
            case _:
                pass
        return True
