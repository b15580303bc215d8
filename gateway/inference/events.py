"""What comes back up: the events of one answer.

Producers (`backends`, `modes`, `cache`) push events into an `Emit`; it returns when the event is taken over by whatever
stands above (at the top: written to the socket), so that a slow reader slows the producer.

The order of one answer: (DraftText | DraftCompleted)* interleaved with (Relayed* | Delta*), one DraftJudged if there
was a draft (not later than the event that carries the finish reason), a finish reason exactly once, UsageReported at
most once, last. Or, for an answer that was not streamed: at most DraftText/DraftCompleted/DraftJudged, then
WholeAnswer, or the Deltas, Finished and UsageReported that say the same.

`Relayed` and `WholeAnswer` hold bytes in the client's schema. Where the backend speaks another one, it gives Deltas.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum

import msgspec

from gateway.inference.usage import Usage


class TokenLogprob(msgspec.Struct, frozen=True):
    """One token: its bytes (maybe half a character), its natural log-probability, and the likeliest in its place."""

    piece: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()
    """Bytes and log-probability of as many as were asked for, the likeliest first."""


class TextDelta(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A piece of the final's text, from a producer that does not speak the client's schema.

    `logprobs` are those of the tokens that it is made of, where the client asked for them: the text may then be empty.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(msgspec.Struct, frozen=True, tag=True):
    """A piece of what the model thinks. `signature` is its provider's proof of it, once, at the end of the thought."""

    text: str
    signature: str = ""


class RefusalDelta(msgspec.Struct, frozen=True, tag=True):
    """A piece of the model's words for not answering."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A piece of a call: `id` and `name` come with the first piece of call `index`, then its arguments' JSON text."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Relayed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Whole SSE events of one network read, as the backend sent them, in the schema that the client speaks.

    Never holds the usage-only event, `[DONE]` or an error: those have events or exceptions of their own.
    """

    data: bytes
    """Ready to be written; ends with an empty line."""
    text: str = ""
    """The visible text of choice 0 in it."""
    content: bool = False
    """Anything that counts as the answer's content: text, reasoning, refusal, a tool call, audio."""
    content_bytes: int = 0
    """Bytes of that content over all choices, for an estimate when no usage comes."""
    finish_reason: str | None = None


class Finished(msgspec.Struct, frozen=True, tag=True):
    """The final is complete: `stop`, `length`, `tool_calls`, `content_filter`. Follows Deltas, never Relayed."""

    reason: str
    stop_sequence: str | None = None
    """Which of the client's stop texts ended it, where the backend says so."""


class UsageReported(msgspec.Struct, frozen=True, tag=True):
    """The usage of the whole answer; `data` is the backend's own SSE event where schema is the client's."""

    usage: Usage
    data: bytes = b""


class WholeAnswer(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A complete answer that was not streamed: the backend's body, byte for byte, in the client's schema."""

    body: bytes
    text: str
    finish_reason: str
    usage: Usage | None = None


class DraftState(StrEnum):
    """States of a draft on the wire. All after `COMPLETE` are verdicts; there is exactly one verdict a draft."""

    PARTIAL = "partial"
    COMPLETE = "complete"
    CONFIRMED = "confirmed"
    REVISED = "revised"
    REPLACED = "replaced"
    PROMOTED = "promoted"
    DROPPED = "dropped"


class DraftText(msgspec.Struct, frozen=True, tag=True):
    """A piece of the draft."""

    text: str
    model: str


class DraftCompleted(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The draft is whole. `confidence` 0..1, None when the edge's model is not calibrated; `ttft_s` in seconds."""

    text: str
    model: str
    tokens: int
    ttft_s: float
    confidence: float | None = None


class DraftJudged(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The verdict. `similarity` 0..1 between draft and final, where both are there to compare."""

    state: DraftState
    model: str
    text: str = ""
    """The whole draft as far as it came."""
    similarity: float | None = None
    changes: tuple[tuple[int, int, str], ...] | None = None
    """What turns a revised draft into its final: start, end, and the text that stands there instead."""


class Idle(msgspec.Struct, frozen=True, tag=True):
    """Nothing else can be sent: becomes a comment on the wire."""


Delta = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta
Event = Delta | Relayed | Finished | UsageReported | WholeAnswer | DraftText | DraftCompleted | DraftJudged | Idle
Emit = Callable[[Event], Awaitable[None]]
