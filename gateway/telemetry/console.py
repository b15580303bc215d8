"""The log as people on a terminal read it: the time first, and of a request what one looks for, in one line.

All that the log knows of a request stands in its JSON form.
"""

from __future__ import annotations

from typing import BinaryIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_NANOUSD = 1_000_000_000
_AS_THEY_ARE = ("tenant", "feature", "model", "route", "mode", "deployment", "hedge", "cascade", "draft")
_NO_FAILURE = frozenset({"ok", "cancelled", "lost", "running"})


def renderer(stream: BinaryIO) -> Processor:
    """What makes a line of text, with colours where the stream is a terminal."""
    render = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), pad_event_to=24, timestamp_key="time", sort_keys=False
    )

    def rendered(logger: WrappedLogger, method: str, event: EventDict) -> str:
        shown = _request(event) if event.get("event") == "request" and "request_id" in event else event
        if isinstance(time := shown.get("time"), str):
            shown["time"] = f"{time[:19]}Z"  # whole seconds
        for name, value in shown.items():
            if isinstance(value, dict):
                shown[name] = ", ".join(f"{key} {fact}" for key, fact in value.items())
        return render(logger, method, shown)

    return rendered


def _request(event: EventDict) -> EventDict:
    """What is told of a finished request, in the order in which it is asked for."""
    error = event.get("error", "")
    told: EventDict = {name: event[name] for name in ("time", "level") if name in event}
    outcome = f"{event.get('status', '')} {error}".strip()
    told["event"] = f"{event.get('method', '')} {event.get('path', '')} {outcome}".strip()
    facts = {
        "took": _duration(event.get("e2e_s")),
        "first_token": _duration(event.get("final_ttft_s")),
        "first_draft_token": _duration(event.get("draft_ttft_s")),
        **{name: event.get(name) for name in _AS_THEY_ARE},
        "cache": event.get("cache") if event.get("cache") != "bypass" else None,
        "tokens": f"{event.get('input_tokens', 0)}+{event.get('output_tokens', 0)}"
        if event.get("input_tokens")
        else "",
        "cost": f"${event['cost_nanousd'] / _NANOUSD:.6f}" if event.get("cost_nanousd") else "",
        "failed": _failures(event),
        "id": event["request_id"],
    }
    told.update((name, fact) for name, fact in facts.items() if fact)
    return told


def _failures(event: EventDict) -> str:
    """Why attempts failed, each reason once."""
    failed = [one for one in event.get("attempts", ()) if one["outcome"] not in _NO_FAILURE]
    return "; ".join(dict.fromkeys(one.get("detail") or f"{one['deployment']}: {one['outcome']}" for one in failed))


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f}s" if seconds >= 1 else f"{seconds * 1000:.0f}ms"
