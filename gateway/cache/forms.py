"""The form of an answer that a request asked for: streamed or whole.

Events of a backend that does not speak the client's schema (the edge's text) have no form: they serve both.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.cache.entry import Kept
from gateway.inference.events import Event, Relayed, UsageReported, WholeAnswer
from gateway.wire.openai_chat_convert import stream_of, whole_of


def in_form(events: Sequence[Kept], *, stream: bool) -> list[Event] | None:
    """The events of the same answer in the form asked for; None: it cannot be given in that form without a loss."""
    whole = next((event for event in events if isinstance(event, WholeAnswer)), None)
    if stream:
        return list(events) if whole is None else stream_of(whole)
    relayed = [event for event in events if isinstance(event, Relayed)]
    if not relayed:
        return list(events)
    usage = next((event for event in events if isinstance(event, UsageReported)), None)
    body = whole_of(b"".join(event.data for event in relayed), usage)
    return None if body is None else [body]
