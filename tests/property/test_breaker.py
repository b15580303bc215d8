"""A breaker under every order of attempts that Hypothesis finds."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.backends.breaker import FAILURES_TO_OPEN, LONGEST_S, Breaker, Ticket


class AnyOrder(RuleBasedStateMachine):
    """Attempts begin, answer and end in any order while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker()
        self.running: list[Ticket] = []

    def _some(self, data) -> Ticket:
        return self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))

    @rule(seconds=st.floats(0, 400))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def begin(self):
        was = self.breaker.state(self.now)
        ticket = self.breaker.begin(self.now)
        assert ticket.is_probe == (was == "half_open")
        self.running.append(ticket)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def answer(self, data):
        self.breaker.answers(data.draw(st.sampled_from(self.running)))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def succeed(self, data):
        self.breaker.succeeded(self._some(data))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), at_once=st.booleans())
    def fail(self, data, at_once):
        before = self.breaker.state(self.now)
        ticket = self._some(data)
        self.breaker.failed(ticket, self.now, at_once=at_once)
        if before == "open":
            assert self.breaker.state(self.now) == "open"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def give_up(self, data):
        before = self.breaker.accepts(self.now)
        self.breaker.given_up(self._some(data))
        assert self.breaker.accepts(self.now) or not before, "nothing was learnt, and it is shut"

    @precondition(lambda self: self.running)
    @rule(data=st.data(), seconds=st.floats(-1, 1e6))
    def ask_for_time(self, data, seconds):
        self.breaker.asked_for_time(self._some(data), self.now, seconds)

    @rule()
    def look_again(self):
        self.breaker.look_again(self.now)

    @invariant()
    def at_most_one_probe_runs(self):
        probes = [ticket for ticket in self.running if ticket is self.breaker._probe]
        assert len(probes) <= 1
        assert self.breaker._probe is None or not self.breaker._probe.is_over, "a probe that is over blocks all others"

    @invariant()
    def it_is_never_shut_for_good(self):
        """With nobody probing, five minutes later at most it takes an attempt."""
        if self.breaker._probe is None:
            assert self.breaker.accepts(self.now + LONGEST_S)
        assert self.breaker.changes_at(self.now) > self.now

    @invariant()
    def it_takes_as_many_failures_as_it_says(self):
        assert self.breaker._failures < FAILURES_TO_OPEN


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
