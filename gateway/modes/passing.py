"""Where all events of an answer pass on their way up."""

from __future__ import annotations

from gateway.inference.events import (
    DraftCompleted,
    DraftJudged,
    DraftText,
    Emit,
    Event,
    Finished,
    Idle,
    ReasoningDelta,
    RefusalDelta,
    Relayed,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    WholeAnswer,
)
from gateway.routing.decision import Decision
from gateway.telemetry.record import RequestRecord

_STORABLE_FINISH = frozenset({"stop", "tool_calls", "function_call"})
"""An answer that was cut by its length may have been cut by a budget: it is not the answer to this prompt."""


class Passing:
    """Notes how the answer ended, and keeps it for the cache, as far as `most_bytes` go; 0: not at all."""

    def __init__(self, record: RequestRecord, emit: Emit, most_bytes: int) -> None:
        self.events: list[Event] = []
        self._record = record
        self._emit = emit
        self._bytes_left = most_bytes

    async def pass_on(self, event: Event) -> None:
        """Take the next event, and give it on."""
        match event:
            case Relayed():
                if event.finish_reason is not None:
                    self._record.finish_reason = event.finish_reason
                self._keep(event, len(event.data))
            case TextDelta() | ReasoningDelta() | RefusalDelta():
                self._keep(event, len(event.text))
            case ToolCallDelta():
                self._keep(event, len(event.arguments) + 64)
            case Finished():
                self._record.finish_reason = event.reason
                self._keep(event, 1)
            case WholeAnswer():
                self._record.finish_reason = event.finish_reason
                self._keep(event, len(event.body))
            case UsageReported():
                self._keep(event, len(event.data))
            case DraftText() | DraftCompleted() | DraftJudged() | Idle():
                pass
        await self._emit(event)

    def storable(self, decision: Decision) -> bool:
        """The answer is whole, was not too large to keep, and came from where the route wanted it."""
        wanted = {deployment.id for deployment in decision.deployments[: decision.first_choices]}
        if decision.draft is not None:
            # What the edge wrote is what the route wanted where it stands, not where it stood in for a failed final.
            wanted -= {decision.draft.id}
            if self._record.cascade == "stands" or self._record.score == "kept":
                wanted.add(decision.draft.id)
        return (
            bool(self.events)
            and self._record.finish_reason in _STORABLE_FINISH
            and self._record.deployment in wanted
            and not self._record.dropped  # what is kept answers all fields of its request
        )

    def _keep(self, event: Event, size: int) -> None:
        if self._bytes_left <= 0:
            return
        self._bytes_left -= size
        if self._bytes_left > 0:
            self.events.append(event)
        else:
            self.events.clear()
