"""The form of an answer that a request asked for: streamed or whole.

Events of a backend that does not speak the client's schema (deltas) have no form: they serve both.
"""

from __future__ import annotations

from gateway.cache.entry import Entry
from gateway.inference.events import Event, Relayed, UsageReported, WholeAnswer
from gateway.inference.request import Surface
from gateway.wire.openai_chat_convert import stream_of, whole_of

_CONVERTIBLE: Surface = "chat"
"""The only schema whose two forms are known to say the same."""


def in_form(entry: Entry, *, stream: bool) -> list[Event] | None:
    """The events of the same answer in the form asked for; None: it cannot be given in that form without a loss."""
    events = entry.events
    whole = next((event for event in events if isinstance(event, WholeAnswer)), None)
    if stream and whole is not None:
        return stream_of(whole) if entry.surface == _CONVERTIBLE else None
    relayed = [event for event in events if isinstance(event, Relayed)]
    if stream or not relayed:
        return list(events)
    if entry.surface != _CONVERTIBLE:
        return None
    usage = next((event for event in events if isinstance(event, UsageReported)), None)
    body = whole_of(b"".join(event.data for event in relayed), usage)
    return None if body is None else [body]
