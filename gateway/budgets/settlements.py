"""What has to be booked: the calls that a settler makes until each has succeeded once.

Open holds under the same limits are settled in one call (`settle_many.lua`), as long as there is nothing special about
them; whatever that call leaves is settled by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from typing import Any, Protocol

import msgspec

from gateway.budgets.claim import Charge
from gateway.budgets.leases import OpenHold
from gateway.budgets.memory import Memory
from gateway.budgets.scripts import Scripts
from gateway.budgets.terms import Clock, Terms
from gateway.errors import StoreUnavailable
from gateway.store.client import ScriptCall
from gateway.store.line import Answer
from gateway.store.script import RUN

_pack = msgspec.msgpack.Encoder().encode
_DONE, _BOOKED, _OTHER_EPOCH, _SEND_RECORD, _LEFT = range(5)
"""What `settle.lua` says first; the last one is what `settle_many.lua` left."""


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

    @property
    def group(self) -> Hashable:
        """Those of the same group may go in one call; itself, where it goes alone."""

    def call(self) -> ScriptCall:
        """The call, with what is known now."""

    def answered(self, answer: list[Any]) -> Outcome:
        """Understand the answer."""


class Settling:
    """Book a hold at its charge."""

    __slots__ = (
        *("_alone", "_charge", "_entry", "_memory", "_scripts", "_with_record"),
        *("may_have_run", "refusals", "tenant"),
    )

    def __init__(self, entry: OpenHold, memory: Memory, scripts: Scripts) -> None:
        self.tenant = entry.terms.tenant
        self.may_have_run = False
        self.refusals = 0
        self._entry = entry
        self._charge = entry.hold.charged
        self._memory = memory
        self._scripts = scripts
        self._with_record = False
        self._alone = False

    @property
    def group(self) -> Hashable:
        is_plain = not (self._alone or self._with_record or self.may_have_run or self.refusals)
        return self._entry.terms if is_plain else self

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
        if what == _BOOKED:
            self._memory.of(self.tenant).note_spent(answer[1].decode(), answer[3], self._entry.terms, answer, 4)
        elif what == _SEND_RECORD:
            self._with_record = True
            return Outcome.AGAIN
        elif what == _LEFT:
            self._alone = True
            return Outcome.AGAIN
        return Outcome.TELL if what == _OTHER_EPOCH else Outcome.DONE

    def call_with(self, others: Sequence[Settling]) -> ScriptCall:
        """One call for this one and `others` of its group."""
        terms = self._entry.terms
        rows = [one.row for one in (self, *others)]
        words = _pack((self._memory.of(self.tenant).epoch, terms.packed_fields, *rows))
        return ScriptCall(self._scripts.settle_many, terms.keys, (RUN, words))

    def answers_with(self, others: Sequence[Settling], answer: list[Any]) -> list[list[Any]]:
        """What the answer to such a call says to each of them."""
        if answer[0] == _OTHER_EPOCH:
            return [answer] * (1 + len(others))
        terms = self._entry.terms
        self._memory.of(self.tenant).note_spent(answer[1].decode(), answer[3], terms, answer, 4)
        return [[_DONE if is_booked else _LEFT] for is_booked in answer[4 + 2 * len(terms.fields) :]]

    @property
    def row(self) -> tuple[str | int, ...]:
        """What such a call says of it."""
        charge = self._charge
        return (
            self._entry.hold.id,
            charge.tokens,
            charge.nanousd,
            charge.input_tokens,
            charge.output_tokens,
            int(charge.estimated),
        )


class GivingUp:
    """Make sure that a hold whose answer was not heard has no effect."""

    __slots__ = ("_call", "may_have_run", "refusals", "tenant")

    def __init__(self, hold_id: str, terms: Terms, scripts: Scripts) -> None:
        self.tenant = terms.tenant
        self.may_have_run = False
        self.refusals = 0
        self._call = ScriptCall(scripts.settle, terms.keys, (RUN, _pack(("", hold_id, 0, 0, 0, 0, 0, 0, "", 0, ()))))

    @property
    def group(self) -> Hashable:
        return self

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

    @property
    def group(self) -> Hashable:
        return self

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


def grouped(batch: Sequence[Settlement]) -> list[list[Settlement]]:
    """A batch in what may go in one call each, in its order."""
    groups: dict[Hashable, list[Settlement]] = {}
    for settlement in batch:
        groups.setdefault(settlement.group, []).append(settlement)
    return list(groups.values())


def call_of(group: Sequence[Settlement]) -> ScriptCall:
    """The call that settles a group."""
    first, *others = group
    if isinstance(first, Settling) and others:
        return first.call_with([one for one in others if isinstance(one, Settling)])
    return first.call()


def answers_of(group: Sequence[Settlement], answer: Answer) -> Sequence[Answer]:
    """What the answer to a group's call says to each of it."""
    first, *others = group
    if isinstance(answer, StoreUnavailable) or not others or not isinstance(first, Settling):
        return [answer] * len(group)
    return first.answers_with([one for one in others if isinstance(one, Settling)], answer)
