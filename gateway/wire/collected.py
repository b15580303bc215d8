"""The deltas of one answer, put together again."""

from __future__ import annotations

from gateway.inference.conversation import Reasoning, Refusal, Text, ToolCall
from gateway.inference.events import (
    Delta,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    UsageReported,
)
from gateway.inference.usage import Usage

Block = Text | Reasoning | Refusal | ToolCall


class _Piece:
    """One block that grows."""

    def __init__(self, kind: type[Block], *, call_id: str = "", name: str = "") -> None:
        self.kind = kind
        self.texts: list[str] = []
        self.signature = ""
        self.call_id = call_id
        self.name = name

    def block(self) -> Block:
        text = "".join(self.texts)
        if self.kind is ToolCall:
            return ToolCall(self.call_id, self.name, text)
        if self.kind is Reasoning:
            return Reasoning(text=text, signature=self.signature)
        return Refusal(text) if self.kind is Refusal else Text(text)


class Collected:
    """An answer's blocks in their order, how it ended, and what it used."""

    def __init__(self) -> None:
        self.finished: Finished | None = None
        self.usage: Usage | None = None
        self.logprobs: list[TokenLogprob] = []
        """Of the text's tokens, where they were asked for."""
        self._pieces: list[_Piece] = []
        self._calls: dict[int, _Piece] = {}

    def add(self, event: Delta | Finished | UsageReported) -> None:
        """Take in the next event."""
        match event:
            case Finished():
                self.finished = event
            case UsageReported():
                self.usage = event.usage
            case ToolCallDelta():
                piece = self._calls.get(event.index)
                if piece is None:
                    piece = self._calls[event.index] = _Piece(ToolCall, call_id=event.id, name=event.name)
                    self._pieces.append(piece)
                piece.texts.append(event.arguments)
            case TextDelta():
                self._growing(Text).texts.append(event.text)
                self.logprobs.extend(event.logprobs)
            case RefusalDelta():
                self._growing(Refusal).texts.append(event.text)
            case ReasoningDelta():
                piece = self._growing(Reasoning)
                piece.texts.append(event.text)
                piece.signature = event.signature or piece.signature

    @property
    def blocks(self) -> list[Block]:
        return [piece.block() for piece in self._pieces]

    @property
    def calls(self) -> list[ToolCall]:
        return [block for block in self.blocks if isinstance(block, ToolCall)]

    def text(self, kind: type[Text | Reasoning | Refusal]) -> str:
        """The text of all blocks of a kind."""
        return "".join(block.text for block in self.blocks if isinstance(block, kind))

    def _growing(self, kind: type[Block]) -> _Piece:
        """The last block, if it is of this kind and its thought is not signed yet; else a new one."""
        if not self._pieces or self._pieces[-1].kind is not kind or self._pieces[-1].signature:
            self._pieces.append(_Piece(kind))
        return self._pieces[-1]
