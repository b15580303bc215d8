"""One answer as `firstdraft ask` shows it: fed with chunks as they come, drawn as often as wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

VERDICTS = {
    "confirmed": "confirmed: the final says the same",
    "revised": "revised: the final changed parts of it",
    "replaced": "replaced: the final is another answer",
    "promoted": "promoted: the draft is the answer",
    "dropped": "dropped: the final came first, or the edge could not draft",
}


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Draft(msgspec.Struct):
    text: str = ""
    state: str = ""
    model: str = ""
    similarity: float | None = None


class Chunk(msgspec.Struct):
    """The fields of a streamed chunk that are shown."""

    model: str = ""
    choices: list[_Choice] = []
    draft: _Draft | None = None
    error: dict[str, Any] | None = None


@dataclass(slots=True)
class Answer:
    """Text and times of draft and final. Times are seconds since the request was sent, as this client saw them."""

    draft: str = ""
    draft_model: str = ""
    draft_ttft_s: float | None = None
    verdict: str = ""
    similarity: float | None = None
    final: str = ""
    final_model: str = ""
    final_ttft_s: float | None = None
    finish_reason: str = ""
    error: str = ""
    notes: list[str] = field(default_factory=list)

    def take(self, chunk: Chunk, at_s: float) -> None:
        """Add one chunk that came at `at_s`."""
        if chunk.error is not None:
            self.error = str(chunk.error.get("message", "")) or "the gateway reported an error without a message"
        if chunk.draft is not None:
            self._take_draft(chunk.draft, at_s)
        for choice in chunk.choices:
            if choice.delta.reasoning_content:
                self._take_draft(_Draft(text=choice.delta.reasoning_content, state="partial"), at_s)
            if choice.delta.content:
                self.final_ttft_s = at_s if self.final_ttft_s is None else self.final_ttft_s
                self.final_model = chunk.model
                self.final += choice.delta.content
            self.finish_reason = choice.finish_reason or self.finish_reason

    def _take_draft(self, draft: _Draft, at_s: float) -> None:
        self.draft_model = draft.model or self.draft_model
        if draft.state == "partial":
            self.draft_ttft_s = at_s if self.draft_ttft_s is None else self.draft_ttft_s
            self.draft += draft.text
        elif draft.state in VERDICTS:
            self.verdict, self.similarity = draft.state, draft.similarity

    def drawn(self) -> RenderableType:
        """What a terminal shows now."""
        parts: list[RenderableType] = []
        if self.draft:
            title = f"draft · {self.draft_model or 'edge'} · first token after {_ms(self.draft_ttft_s)}"
            parts.append(_panel(title, Text(self.draft.strip(), style="dim"), "yellow", self._verdict()))
        if self.final:
            title = f"final · {self.final_model} · first token after {_ms(self.final_ttft_s)}"
            parts.append(_panel(title, Text(self.final.strip()), "green", self.finish_reason))
        if self.error:
            parts.append(_panel("error", Text(self.error), "red", ""))
        if not parts:
            parts.append(Text("waiting for the first token …", style="dim"))
        return Group(*parts, *(Text(note) for note in self.notes))

    def _verdict(self) -> str:
        if not self.verdict:
            return ""
        likeness = "" if self.similarity is None else f" (similarity {self.similarity:.2f})"
        return VERDICTS[self.verdict] + likeness


def _panel(title: str, body: Text, style: str, below: str) -> Panel:
    return Panel(
        body,
        title=escape(title),
        title_align="left",
        subtitle=escape(below) or None,
        subtitle_align="left",
        border_style=style,
    )


def _ms(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds * 1000:,.0f} ms"
