"""What a search costs over 10,000 passages: `python -m tests.benchmarks.retrieval`.

Wall milliseconds, median and 99th percentile, in one process with a real Valkey beside it. Without embeddings.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

from gateway.cache.entry import EntryCodec
from gateway.retrieval.found import FoundBefore
from gateway.retrieval.index_folder import IndexFolder
from gateway.retrieval.indexing import build
from gateway.retrieval.rule import PassageStore
from gateway.retrieval.stores import Retrieval
from gateway.store.client import Store
from gateway.store.embedded import EmbeddedValkey

_PASSAGES = 10_000
_QUERIES = 500


def _write_documents(folder: Path) -> None:
    chance = random.Random(7)
    syllables = ["ka", "ro", "mi", "te", "lu", "sho", "ven", "dar", "pi", "gno"]
    words = ["".join(chance.choices(syllables, k=chance.randint(2, 4))) for _ in range(8_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    for number in range(_PASSAGES // 10):
        paragraphs = [" ".join(chance.choices(words, weights, k=80)) + "." for _ in range(10)]
        (folder / f"{number}.md").write_text("\n\n".join(paragraphs))


def _queries() -> list[str]:
    chance = random.Random(8)
    syllables = ["ka", "ro", "mi", "te", "lu", "sho", "ven", "dar", "pi", "gno"]
    return [
        " ".join("".join(chance.choices(syllables, k=chance.randint(2, 3))) for _ in range(8)) for _ in range(_QUERIES)
    ]


def _show(name: str, times: list[float]) -> None:
    ordered = sorted(times)
    p99 = ordered[int(len(ordered) * 0.99)]
    print(f"{name:32} median {statistics.median(times) * 1e3:6.3f} ms   p99 {p99 * 1e3:6.3f} ms")


async def main(folder: Path) -> None:
    """Index, then search."""
    place = PassageStore(name="bench", type="files")
    async with EmbeddedValkey(folder / "state") as server, Store(server.url) as store:
        for kind in ("uncached", "cached in memory", "cached in the store"):
            before = FoundBefore(store, b"s", EntryCodec(1_000_000, None))
            async with Retrieval(folder / "state", before) as retrieval:
                times = []
                for query in _queries():
                    began = time.perf_counter()
                    _, found_before = await retrieval.search(place, query, most=4, tenant="acme", rights=())
                    times.append(time.perf_counter() - began)
                    assert found_before is (kind != "uncached")
                    if kind == "cached in memory":
                        began = time.perf_counter()
                        await retrieval.search(place, query, most=4, tenant="acme", rights=())
                        times[-1] = time.perf_counter() - began
                _show(kind, times)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        (here / "documents").mkdir()
        _write_documents(here / "documents")
        started = time.perf_counter()
        built = build(here / "documents", IndexFolder(here / "state", "bench"), None)
        print(f"{built.facts.passages:,} passages indexed in {time.perf_counter() - started:.2f} s")
        asyncio.run(main(here))
