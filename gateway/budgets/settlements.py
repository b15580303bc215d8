"""What has to be booked: the calls that a settler makes until each has succeeded once."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

import msgspec

from gateway.budgets.claim import Charge
from gateway.budgets.leases import OpenHold
from gateway.budgets.memory import Memory
from gateway.budgets.scripts import Scripts
from gateway.budgets.terms import Clock, Terms
from gateway.store.client import ScriptCall
from gateway.store.script import RUN

_pack = msgspec.msgpack.Encoder().encode


class Outcome(Enum):
    """What a settlement's answer means."""

    DONE = "done"
    AGAIN = "again"
    """With what the answer has taught; at once."""
    TELL = "tell"
    """Once the store has been told what this gateway knows."""


class Settlement(Protocol):
    """One script call that has to succeed once, for one tenant. It is made anew for each try."""

    tenant: str
    may_have_run: bool
    """It was sent before, and the answer was lost."""
    refusals: int
    """How often the server refused it."""

    def call(self) -> ScriptCall:
        """The call, with what is known now."""

    def answered(self, answer: list[Any]) -> Outcome:
        """Understand the answer."""


class Settling:
    """Book a hold at its charge."""

    __slots__ = ("_charge", "_entry", "_memory", "_scripts", "_with_record", "may_have_run", "refusals", "tenant")

    def __init__(self, entry: OpenHold, memory: Memory, scripts: Scripts) -> None:
        self.tenant = entry.terms.tenant
        self.may_have_run = False
        self.refusals = 0
        self._entry = entry
        self._charge = entry.hold.charged
        self._memory = memory
        self._scripts = scripts
        self._with_record = False

    def call(self) -> ScriptCall:
        entry, charge = self._entry, self._charge
        words = _pack(
            (
                self._memory.of(self.tenant).epoch,
                entry.hold.id,
                charge.tokens,
                charge.nanousd,
                charge.input_tokens,
                charge.output_tokens,
                int(charge.estimated),
                int(self.may_have_run),
                entry.epoch,
                entry.seq,
                entry.terms.packed_fields,
            )
        )
        args = (RUN, words, entry.record) if self._with_record else (RUN, words)
        return ScriptCall(self._scripts.settle, entry.terms.keys, args)

    def answered(self, answer: list[Any]) -> Outcome:
        what = answer[0]
        if what == 1:
            self._memory.of(self.tenant).note_spent(answer[1].decode(), answer[3], self._entry.terms, answer, 4)
        if what == 3:
            self._with_record = True
            return Outcome.AGAIN
        return Outcome.TELL if what == 2 else Outcome.DONE


class GivingUp:
    """Make sure that a hold whose answer was not heard has no effect."""

    __slots__ = ("_call", "may_have_run", "refusals", "tenant")

    def __init__(self, hold_id: str, terms: Terms, scripts: Scripts) -> None:
        self.tenant = terms.tenant
        self.may_have_run = False
        self.refusals = 0
        self._call = ScriptCall(scripts.settle, terms.keys, (RUN, _pack(("", hold_id, 0, 0, 0, 0, 0, 0, "", 0, ()))))

    def call(self) -> ScriptCall:
        return self._call

    def answered(self, answer: list[Any]) -> Outcome:  # noqa: ARG002 whatever it was, it is over
        return Outcome.DONE


class Reporting:
    """Book what was granted without the store. `reported` runs when the store has it."""

    __slots__ = (
        *("_charge", "_clock", "_hold_id", "_memory", "_reported", "_scripts", "_terms"),
        *("may_have_run", "refusals", "tenant"),
    )

    def __init__(
        self,
        hold_id: str,
        charge: Charge,
        terms: Terms,
        *,
        memory: Memory,
        clock: Clock,
        scripts: Scripts,
        reported: Callable[[], None],
    ) -> None:
        self.tenant = terms.tenant
        self.may_have_run = False
        self.refusals = 0
        self._hold_id = hold_id
        self._charge = charge
        self._terms = terms
        self._memory = memory
        self._clock = clock
        self._scripts = scripts
        self._reported = reported

    def call(self) -> ScriptCall:
        charge, terms = self._charge, self._terms
        words = _pack(
            (
                self._memory.of(self.tenant).epoch,
                self._hold_id,
                charge.tokens,
                charge.nanousd,
                charge.input_tokens,
                charge.output_tokens,
                int(charge.estimated),
                terms.feature,
                terms.packed(self._clock.now_s()),
            )
        )
        return ScriptCall(self._scripts.book, terms.keys, (RUN, words))

    def answered(self, answer: list[Any]) -> Outcome:
        what = answer[0]
        if what == 2:
            return Outcome.TELL
        self._clock.note(answer[2])
        if what == 6:
            return Outcome.AGAIN
        if what == 1:
            self._memory.of(self.tenant).note(answer[1].decode(), answer[3], self._terms, answer, 4)
        self._reported()
        return Outcome.DONE
