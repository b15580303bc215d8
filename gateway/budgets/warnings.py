"""One log line for each budget of which more is used than its tenant wants unsaid."""

from __future__ import annotations

import time

import structlog

from gateway.budgets.claim import Hold, describe_used
from gateway.budgets.limit import Limit

_MOST_REMEMBERED = 4_096


class Warnings:
    """Remembers, for each limit, until when it has been said."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, Limit], float] = {}

    def note(self, tenant: str, hold: Hold) -> None:
        """Log what is to be warned of and has not been said in this window by this process."""
        for entry in hold.warned:
            now = time.monotonic()
            if self._said.get((tenant, entry.limit), 0.0) > now:
                continue
            if len(self._said) >= _MOST_REMEMBERED:
                self._said.clear()
            self._said[tenant, entry.limit] = now + entry.resets_in_s
            structlog.get_logger().warning(
                "budget_warning", tenant=tenant, used=describe_used(entry), left=entry.left, unit=entry.limit.unit
            )
