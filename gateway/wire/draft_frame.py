"""What a draft frame says, the same on every surface; only where the frame rides differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.inference.events import DraftCompleted, DraftJudged, DraftState, DraftText


def draft_frame(seq: int, event: DraftText | DraftCompleted | DraftJudged, sources: Sequence[str]) -> dict[str, Any]:
    """The `draft` object of a stream's frame; the first one names the documents whose passages are in the prompt."""
    draft = {"seq": seq, **draft_fields(event)}
    if seq == 0 and sources:
        draft["sources"] = sources
    return draft


def draft_fields(event: DraftText | DraftCompleted | DraftJudged) -> dict[str, Any]:
    """The members of the `draft` object after `seq`; the text is only in pieces of a draft."""
    match event:
        case DraftText():
            return {"text": event.text, "state": DraftState.PARTIAL, "model": event.model}
        case DraftCompleted():
            more: dict[str, Any] = {"ttft_s": round(event.ttft_s, 6), "tokens": event.tokens}
            if event.confidence is not None:
                more = {"confidence": round(event.confidence, 6), **more}
            return {"text": "", "state": DraftState.COMPLETE, "model": event.model, **more}
        case DraftJudged():
            more = {} if event.similarity is None else {"similarity": round(event.similarity, 6)}
            if event.changes is not None:
                more["changes"] = event.changes
            return {"text": "", "state": event.state, "model": event.model, **more}
