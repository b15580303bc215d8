"""From a request to the passages in its prompt."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from gateway.inference.request import InferenceRequest
from gateway.retrieval.passage import Passage
from gateway.retrieval.rule import PassageStore, RetrievalRule
from gateway.retrieval.stores import Retrieval
from gateway.wire.context import context_text, question_of, with_context

_BYTES_PER_TOKEN = 4
_LONGEST_HEADER = 2_000


class Passages:
    """Finds passages and adds them. One for all requests of a worker."""

    def __init__(self, retrieval: Retrieval) -> None:
        self._retrieval = retrieval

    async def added_to(
        self,
        request: InferenceRequest,
        rule: RetrievalRule,
        *,
        store: PassageStore,
        tenant: str,
        labels: tuple[str, ...],
    ) -> tuple[InferenceRequest, str]:
        """The request with what the store has about its question, and `hit`, `searched` or `none`.

        Raises:
            RetrievalFailed: the store could not be searched.
        """
        question = question_of(request)
        if not question.strip():
            return request, "none"
        results, found_before = await self._retrieval.search(
            store, question, most=rule.top_k, tenant=tenant, rights=labels
        )
        chosen = _chosen(results.passages, rule.max_tokens)
        if not chosen:
            return request, "none"
        text = context_text([(passage.source, passage.text) for passage in chosen])
        sources = tuple(dict.fromkeys(passage.source for passage in chosen))
        return with_context(request, text, sources), "hit" if found_before else "searched"


def sources_header(sources: Iterable[str]) -> str:
    """The names for a response header: percent-encoded, divided by commas, as many as fit."""
    header = ""
    for source in sources:
        more = quote(source[:300], safe="/ ._-~", errors="replace")
        if len(header) + len(more) > _LONGEST_HEADER:
            break
        header = f"{header}, {more}" if header else more
    return header


def _chosen(passages: Iterable[Passage], max_tokens: int) -> list[Passage]:
    """The best that fit, in the order of their documents: the same passages always make the same prompt."""
    left, chosen = max_tokens * _BYTES_PER_TOKEN, []
    for passage in passages:
        size = len(passage.text.encode("utf-8", "surrogatepass")) + len(passage.source)
        if size <= left:
            left -= size
            chosen.append(passage)
    return sorted(chosen, key=lambda passage: (passage.source, passage.position, passage.id))
