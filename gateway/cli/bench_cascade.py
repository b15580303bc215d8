"""The work of `firstdraft bench cascade`: questions, asking, and the table."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gateway.inference.events import DraftState
from gateway.modes.verdict import judge
from gateway.wire.sse import SSEDecoder

_COLUMNS = ("question", "prompt")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, with its answer where the file has one."""

    text: str
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Questions:
    """Those of one file; `shots` are shown as examples before each of them."""

    asked: Sequence[Question]
    shots: Sequence[Question] = ()


def questions(path: Path, *, shots: int = 0, skip: int = 0, limit: int | None = None) -> Questions:
    """The questions in a file: `shots` with answers as examples, then `limit` of them after the next `skip`.

    Raises:
        ValueError: there are none.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file) if path.suffix == ".csv" else (_members(line) for line in file if line.strip())
        found = [question for question in map(_question, rows) if question.text]
    examples = [question for question in found if question.answer][:shots]
    asked = [question for question in found if question not in examples][skip:][:limit]
    if not asked:
        raise ValueError(f"{path}: no questions; a column or member `question` or `prompt` is looked for")
    return Questions(asked, examples)


def _members(line: str) -> Mapping[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _question(row: Mapping[str, object]) -> Question:
    turns = row.get("turns")
    first = turns[0] if isinstance(turns, list) and turns else ""
    text = next((row[name] for name in _COLUMNS if row.get(name)), first)
    return Question(str(text), str(row.get("answer") or ""))


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer. Times in seconds since the question was sent."""

    text: str
    cascade: str
    """What came of the cascade: `stands`, or why not; empty where there was none."""
    cost_usd: float
    first_s: float
    whole_s: float


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: object = None


class _Last(msgspec.Struct):
    cost_usd: float = 0.0
    cascade: str = ""


class _Usage(msgspec.Struct):
    last: _Last | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How questions are asked."""

    client: httpx.Client
    model: str
    instructions: str
    max_tokens: int

    def ask(self, question: str, feature: str, shots: Sequence[Question] = ()) -> Asked:
        """Ask once, streamed, without drafts. Raises ValueError when the gateway refuses."""
        messages = [{"role": "system", "content": self.instructions}] if self.instructions else []
        for shot in shots:
            messages += [{"role": "user", "content": shot.text}, {"role": "assistant", "content": shot.answer}]
        body = {
            "model": self.model,
            "messages": [*messages, {"role": "user", "content": question}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": True,
            "draft": "off",
        }
        began, first, text = time.monotonic(), 0.0, ""
        headers = {"x-firstdraft-feature": feature}
        with self.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"{response.status_code}: {response.read().decode(errors='replace')[:300]}")
            decoder = SSEDecoder()
            for data in response.iter_raw():
                for event in decoder.feed(data):
                    piece = "" if event.data == b"[DONE]" else _content(event.data)
                    first = first or (time.monotonic() - began if piece else 0.0)
                    text += piece
        whole = time.monotonic() - began
        told = self._told(response.headers.get("x-request-id", ""))
        return Asked(text, told.cascade, told.cost_usd, first, whole)

    def _told(self, request_id: str) -> _Last:
        """What the gateway says about a request that is over."""
        usage = self.client.get("/v1/firstdraft/usage", params={"request": request_id})
        usage.raise_for_status()
        return msgspec.json.decode(usage.content, type=_Usage).last or _Last()


def _content(data: bytes) -> str:
    chunk = msgspec.json.decode(data, type=_Chunk)
    if chunk.error is not None:
        raise ValueError(f"the answer ended with an error: {str(chunk.error)[:300]}")
    return "".join(choice.delta.content or "" for choice in chunk.choices)


@dataclass(frozen=True, slots=True)
class Pair:
    """One question's two answers, and how the first compares with the second."""

    cascaded: Asked
    alone: Asked
    verdict: DraftState

    @property
    def at_the_edge(self) -> bool:
        """The edge's answer stood."""
        return self.cascaded.cascade == "stands"


def compare(
    asking: Asking, sets: Mapping[str, Questions], *, feature: str, reference: str, console: Console
) -> dict[str, list[Pair]]:
    """Ask every question of each set twice. Raises ValueError when the first feature's route is no cascade."""
    found: dict[str, list[Pair]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        for name, given in sets.items():
            bar = bars.add_task(name, total=len(given.asked))
            found[name] = []
            for question in given.asked:
                cascaded, alone = (asking.ask(question.text, asks, given.shots) for asks in (feature, reference))
                pair = Pair(cascaded, alone, judge(cascaded.text, alone.text)[0])
                if not pair.cascaded.cascade:
                    raise ValueError(f"feature `{feature}` gets no cascade: give it a route with `mode: cascade`")
                found[name].append(pair)
                bars.advance(bar)
    return found


def table(found: Mapping[str, Sequence[Pair]]) -> Table:
    """A column for each set of questions."""
    made = Table(title="The cascade, and the larger model alone", title_justify="left")
    made.add_column("")
    for name in found:
        made.add_column(name, justify="right")
    for label, *cells in zip(_LABELS, *(cells_of(pairs) for pairs in found.values()), strict=True):
        made.add_row(label, *(Text(cell) for cell in cells))
    return made


_LABELS = (
    "questions",
    "answered at the edge",
    "of these, the same as the larger model's",
    "of all, the same as the larger model's",
    "why not at the edge",
    "cost; alone",
    "saved",
    "seconds p50, p95",
    "alone p50, p95",
)


def cells_of(pairs: Sequence[Pair]) -> list[str]:
    """What stands beside the labels, for one set of questions."""
    edge = [pair for pair in pairs if pair.at_the_edge]
    cost = sum(pair.cascaded.cost_usd for pair in pairs)
    alone = sum(pair.alone.cost_usd for pair in pairs)
    others = Counter(pair.cascaded.cascade for pair in pairs if not pair.at_the_edge)
    return [
        str(len(pairs)),
        _share(len(edge), len(pairs)),
        _share(sum(pair.verdict is DraftState.CONFIRMED for pair in edge), len(edge)),
        _share(sum(pair.verdict is DraftState.CONFIRMED for pair in pairs), len(pairs)),
        ", ".join(f"{count} {what}" for what, count in others.most_common()) or "–",
        f"${cost:.4f}; ${alone:.4f}",
        f"{1 - cost / alone:.0%}" if alone else "–",
        _times([pair.cascaded.whole_s for pair in pairs]),
        _times([pair.alone.whole_s for pair in pairs]),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.0%})" if whole else "–"


def _times(seconds: Sequence[float]) -> str:
    ranked = sorted(seconds)
    return f"{_rank(ranked, 0.5):.2f}, {_rank(ranked, 0.95):.2f}"


def _rank(ranked: Sequence[float], share: float) -> float:
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
