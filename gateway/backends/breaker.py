"""Whether a deployment may be asked: a state machine without a clock, without I/O.

    closed ──5 failures in a row, or it does not take our key──▶ open for 10 s × 2ⁿ, at most 5 minutes
    open ──its time is over──▶ half open: the next attempt is the probe, and there is one at a time
    half open ──the probe fails──▶ open, n + 1          half open ──the probe is given up──▶ half open
    half open ──the probe's answer begins──▶ closed on trial: one failure opens it again, n + 1
    closed ──an answer ends well──▶ closed, n = 0, no failures
    any ──the backend asks for time──▶ paused until then, at most 5 minutes; the state beneath stays as it is

Who moves it: attempts, through the `Ticket` that each gets when it begins. An attempt that began before the newest
opening says nothing about what came after it, neither good nor bad. One that is made all the same while the breaker is
open (because nothing else is left to ask) may close it, and never keeps it open for longer: else many who have no
choice would shut the last deployment out for good.

A request for time (429, `retry-after`) is no failure: the backend works, for others or later. Times are seconds of any
clock that only grows; whoever calls says what time it is.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

FAILURES_TO_OPEN = 5
FIRST_OPEN_S = 10.0
LONGEST_S = 300.0
"""No deployment is left alone for longer than this at once, whatever it says."""

State = Literal["closed", "open", "half_open", "probing", "paused"]


class Ticket(msgspec.Struct):
    """An attempt, as its deployment's breaker knows it."""

    opening: int
    """How often the breaker had opened when it began."""
    is_probe: bool
    is_over: bool = False


class Breaker:
    """One deployment's."""

    __slots__ = ("_failures", "_open_until", "_opening", "_paused_until", "_probe", "_row")

    def __init__(self) -> None:
        self._failures = 0
        """In a row."""
        self._opening = 0
        self._row = 0
        """Openings since an answer last ended well: n is one less."""
        self._open_until: float | None = None
        """None: closed."""
        self._paused_until = -math.inf
        self._probe: Ticket | None = None

    def state(self, now: float) -> State:
        """How it is at the moment."""
        if now < self._paused_until:
            return "paused"
        if self._open_until is None:
            return "closed"
        if now < self._open_until:
            return "open"
        return "half_open" if self._probe is None else "probing"

    def accepts(self, now: float) -> bool:
        """Another attempt is welcome."""
        return self.state(now) in {"closed", "half_open"}

    def changes_at(self, now: float) -> float:
        """When the state changes by itself, if nothing happens until then; infinity: never."""
        due = [at for at in (self._paused_until, self._open_until) if at is not None and at > now]
        return min(due, default=math.inf)

    def pause_left_s(self, now: float) -> float:
        """Seconds until the time that the backend asked for is over; 0 where it asked for none."""
        return max(0.0, self._paused_until - now)

    # --- what attempts tell -----------------------------------------------------------------------------------

    def begin(self, now: float) -> Ticket:
        """An attempt begins, welcome or not. The first one in the half open state is the probe."""
        ticket = Ticket(self._opening, is_probe=self.state(now) == "half_open")
        if ticket.is_probe:
            self._probe = ticket
        return ticket

    def answers(self, ticket: Ticket) -> None:
        """Its answer has begun: the deployment works, at least so far."""
        if self._open_until is not None and ticket.opening == self._opening:
            self._open_until, self._failures = None, FAILURES_TO_OPEN - 1
            self._probe = None

    def succeeded(self, ticket: Ticket) -> None:
        """Its answer ended well."""
        self._end(ticket)
        if ticket.opening == self._opening:
            self._open_until, self._failures, self._row = None, 0, 0
            self._probe = None

    def failed(self, ticket: Ticket, now: float, *, at_once: bool = False) -> None:
        """The deployment failed it; `at_once`: so that the next attempt would fail as well."""
        self._end(ticket)
        if ticket.opening != self._opening:
            return
        if self._open_until is None:
            self._failures += 1
            if at_once or self._failures >= FAILURES_TO_OPEN:
                self._open(now)
        elif ticket.is_probe:
            self._open(now)

    def asked_for_time(self, ticket: Ticket, now: float, seconds: float) -> None:
        """The backend answered that it wants to be left alone for so long."""
        self._end(ticket)
        self._paused_until = max(self._paused_until, now + min(max(seconds, 0.0), LONGEST_S))

    def given_up(self, ticket: Ticket) -> None:
        """It came to an end that says nothing about the deployment: the client left, or the request was wrong."""
        self._end(ticket)

    # --- what others find out ---------------------------------------------------------------------------------

    def look_again(self, now: float) -> None:
        """Somebody saw that the deployment works again: the probe need not wait any longer."""
        if self._open_until is not None:
            self._open_until = min(self._open_until, now)

    def _end(self, ticket: Ticket) -> None:
        ticket.is_over = True
        if self._probe is ticket:
            self._probe = None

    def _open(self, now: float) -> None:
        self._open_until = now + min(LONGEST_S, FIRST_OPEN_S * 2 ** min(self._row, 10))
        self._opening += 1
        self._row += 1
        self._failures = 0
