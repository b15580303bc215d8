"""Log-probabilities of an answer's tokens, as OpenAI's chat and its legacy completions write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.inference.events import TokenLogprob


def chat_logprobs(told: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """What stands in a choice's `logprobs`; None where nothing was asked for."""
    if not told:
        return None
    content = [
        _token(said.piece, said.logprob) | {"top_logprobs": [_token(*other) for other in said.top]} for said in told
    ]
    return {"content": content, "refusal": None}


def _token(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": _text(piece), "logprob": logprob, "bytes": list(piece)}


def legacy_logprobs(told: Sequence[TokenLogprob], offset: int) -> dict[str, Any] | None:
    """The same for a completion whose text begins `offset` characters into the answer."""
    if not told:
        return None
    tokens = [_text(said.piece) for said in told]
    offsets = [offset + sum(map(len, tokens[:place])) for place in range(len(tokens))]
    return {
        "tokens": tokens,
        "token_logprobs": [said.logprob for said in told],
        "top_logprobs": [{_text(piece): sure for piece, sure in said.top} for said in told],
        "text_offset": offsets,
    }


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", errors="replace")
