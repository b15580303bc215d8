"""Search by words: BM25 over a tantivy index, in which the passages themselves are kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import tantivy

from gateway.retrieval.passage import Passage

VERSION = "1"
"""Changes with the index's fields."""

_MOST_WORDS = 48
_HEAP_BYTES = 50_000_000
_WORD = re.compile(r"\w+")


def write(folder: Path, passages: Sequence[Passage]) -> None:
    """Write a new index into an empty folder."""
    writer = tantivy.Index(_schema(), path=str(folder)).writer(_HEAP_BYTES, num_threads=1)
    for passage in passages:
        document = tantivy.Document()
        document.add_text("text", passage.text)
        document.add_text("source", passage.source.replace("/", " ").replace("_", " "))
        document.add_text("id", passage.id)
        document.add_bytes("passage", msgspec.msgpack.encode(passage))
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()


class Words:
    """A written index, open for reading."""

    def __init__(self, folder: Path) -> None:
        self._index = tantivy.Index.open(str(folder))
        self._searcher = self._index.searcher()

    def search(self, query: str, most: int) -> list[Passage]:
        """The best passages, best first; none where no word of the query stands anywhere."""
        words = [word.lower() for word in _WORD.findall(query)[:_MOST_WORDS]]
        if not words:
            return []
        # Lower case and nothing but words: nothing in it is an operator of the query language.
        parsed, _ = self._index.parse_query_lenient(" ".join(words), ["text", "source"])
        return self._passages(self._searcher.search(parsed, most, count=False).hits)

    def by_ids(self, ids: Sequence[str]) -> dict[str, Passage]:
        """The passages with these ids."""
        schema = self._index.schema
        either = [(tantivy.Occur.Should, tantivy.Query.term_query(schema, "id", one)) for one in ids]
        if not either:
            return {}
        found = self._searcher.search(tantivy.Query.boolean_query(either), len(ids), count=False)
        return {passage.id: passage for passage in self._passages(found.hits)}

    def _passages(self, hits: Sequence[tuple[float, Any]]) -> list[Passage]:
        found = []
        for score, address in hits:
            packed = bytes(self._searcher.doc(address)["passage"][0])
            passage = msgspec.msgpack.decode(packed, type=Passage)
            found.append(msgspec.structs.replace(passage, score=float(score)))
        return found


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("text", tokenizer_name="en_stem", index_option="freq")
    builder.add_text_field("source", tokenizer_name="en_stem", index_option="freq")
    builder.add_text_field("id", tokenizer_name="raw", index_option="basic")
    builder.add_bytes_field("passage", stored=True)
    return builder.build()
