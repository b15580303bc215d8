"""Holds that outlive their requests: of answers that are read on, for their backends bill them to the end anyway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.budgets.claim import Hold
from gateway.telemetry.record import RequestRecord


def ends_later(
    record: RequestRecord,
    hold: Hold | None,
    reading_on: Sequence[asyncio.Task[None]],
    *,
    charge: Callable[[RequestRecord, Hold | None], None],
    end: Callable[[Hold], None],
) -> bool:
    """Have `charge` say what was used so far; True: again, and then `end`, when the answers still read have ended."""
    charge(record, hold)
    if hold is None or not reading_on:
        return False
    left = set(reading_on)

    def read(task: asyncio.Task[None]) -> None:
        left.discard(task)
        if not left:
            charge(record, hold)
            end(hold)

    for task in reading_on:
        task.add_done_callback(read)
    return True
