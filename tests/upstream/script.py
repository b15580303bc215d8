"""What the scripted upstream is told to do with one request."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Cut = Literal["", "before_head", "in_head", "after_head"]


class Script(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One request's fate. The defaults are an ordinary answer; each field spoils one thing. Times are seconds."""

    text: str = "Hello from the scripted upstream, which says what it is told."
    chunks: int | None = None
    """Content chunks of a stream: words of `text`, over and over. None: `text` once."""
    tool_calls: list[dict[str, Any]] | None = None
    finish_reason: str | None = "stop"
    usage: Literal["chunk", "finish", "every", "none"] = "chunk"
    """In a chunk of its own, on the chunk with the finish reason, on every chunk, or nowhere."""
    refuses_prediction: bool = False
    """`prediction` is answered with 400."""
    refuses_usage_option: bool = False
    """`stream_options` is answered with 400."""
    done: bool = True
    extra: dict[str, Any] = {}
    """Unknown members for every chunk and for the whole answer."""

    head_after_s: float = 0.0
    think_s: float = 0.0
    """Between the head and the first token; for a whole answer, before the head."""
    delay_s: float = 0.0
    """Between two chunks."""
    stall_after: int | None = None
    """After so many chunks nothing more comes, and the connection stays open. With -1 not even the head comes."""

    status: int = 200
    body: bytes | None = None
    """Sent as it is, instead of an answer."""
    content_type: str | None = None
    headers: dict[str, str] = {}
    coding: str = ""
    """`gzip` compresses; any other name is only said."""

    cut: Cut = ""
    """Where the connection ends too soon."""
    cut_after: int | None = None
    """The connection ends after so many chunks."""
    reset: bool = False
    """A cut is a TCP reset."""

    raw: tuple[bytes, ...] = ()
    """Writes of a stream, instead of an answer."""
    first_events: tuple[bytes, ...] = ()
    """Payloads that come before the first chunk."""
    error_event: dict[str, Any] | None = None
    """Sent after the chunks, instead of what ends an answer."""
    error_name: str = ""
    """The `event:` name of the error event."""
    line_end: Literal["\n", "\r\n", "\r"] = "\n"
    fragment: int = 0
    """Writes of so many bytes each, wherever that splits."""
    comments: bool = False
    multiline: bool = False
    """Each event's JSON is spread over several `data` lines."""
