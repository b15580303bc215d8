import asyncio
import json
import threading

import numpy as np
import pytest

from gateway.errors import RetrievalFailed, SettingsError
from gateway.retrieval import indexing
from gateway.retrieval.files import FileSearch
from gateway.retrieval.filters import read_filter
from gateway.retrieval.index_folder import IndexFolder
from gateway.retrieval.indexing import build

DOCUMENTS = {
    "hr/leave.md": "# Leave\n\nEvery employee has thirty days of holiday a year.",
    "hr/pay.md": "# Pay\n\nSalaries are paid on the last working day of a month.",
    "it/laptop.txt": "A broken laptop is replaced within two days by the service desk.",
    "it/old.html": "<h1>Printers</h1><p>Printers are on every floor.</p>",
    ".hidden.md": "secret",
    "logo.png": "not text",
}
MEANINGS = {"holiday": 0, "vacation": 0, "salaries": 1, "wages": 1, "laptop": 2, "computer": 2, "printers": 3}


class Embedder:
    """Knows synonyms of a few words; counts what it was given."""

    name = "synonyms"

    def __init__(self):
        self.texts = []

    def embed(self, texts):
        self.texts += texts
        vectors = np.full((len(texts), 8), 0.01, np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word, meaning in MEANINGS.items():
                row[meaning] += word in text.lower()
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def documents(tmp_path):
    folder = tmp_path / "documents"
    for name, text in DOCUMENTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path):
    return IndexFolder(tmp_path / "state", "handbook")


async def sources(search, query, most=4, filters=None):
    results = await search.search(query, most, filters, read_filter(filters))
    return [passage.source for passage in results.passages]


@pytest.fixture
def search(tmp_path, documents, folder):
    build(documents, folder, None)
    return FileSearch(tmp_path / "state", "handbook", None)


async def test_search_by_words(search):
    """Words find their documents, whatever their form; the best comes first; what nobody wrote finds nothing."""
    assert (await sources(search, "How many holidays does an employee have?"))[0] == "hr/leave.md"
    assert (await sources(search, "salary paid"))[0] == "hr/pay.md"
    assert (await sources(search, "printers"))[0] == "it/old.html"
    assert await sources(search, "quantum chromodynamics") == []
    assert len(await sources(search, "day days", most=1)) == 1


@pytest.mark.parametrize(
    "query", ["", "   ", '"', "AND OR NOT", "text:(a", "*", "source:hr^5 -leave", "\x00", "🙂", "x" * 5_000, "[a TO b]"]
)
async def test_queries_have_no_syntax(search, query):
    """Whatever a user writes is words to look for, never an operator, and never an error."""
    await sources(search, query)


async def test_only_documents_are_indexed(search):
    """Hidden files and other kinds are left out."""
    assert await sources(search, "secret") == []
    assert await sources(search, "not text") == []


async def test_filters_choose_documents(search):
    """A filter leaves only passages whose attributes pass."""
    only = {"type": "eq", "key": "folder", "value": "it"}
    assert set(await sources(search, "days", filters=only)) == {"it/laptop.txt"}


async def test_no_index_yet(tmp_path):
    """The error says how to make one."""
    search = FileSearch(tmp_path, "handbook", None)
    assert search.version() == ""
    with pytest.raises(RetrievalFailed, match="firstdraft retrieval index"):
        await search.search("x", 1, None, None)


async def test_search_by_meaning(tmp_path, documents, folder):
    """Words that nobody wrote find what means the same; words that somebody wrote still count."""
    embedder = Embedder()
    build(documents, folder, embedder)
    search = FileSearch(tmp_path / "state", "handbook", lambda: embedder)
    assert (await sources(search, "vacation"))[0] == "hr/leave.md"
    assert (await sources(search, "my computer"))[0] == "it/laptop.txt"
    assert (await sources(search, "wages and the service desk"))[:2] in (
        ["hr/pay.md", "it/laptop.txt"],
        ["it/laptop.txt", "hr/pay.md"],
    )


async def test_a_changed_document_is_never_answered_from_the_old_version(tmp_path, search, documents, folder):
    """From the moment that an index is current, searches that are open use it, and the version is another."""
    before = search.version()
    (documents / "hr/leave.md").write_text("# Leave\n\nEvery employee has forty days of holiday a year.")
    (documents / "it/laptop.txt").unlink()
    assert search.version() == before
    assert build(documents, folder, None).is_new
    assert search.version() != before
    (found,) = (await search.search("holiday", 1, None, None)).passages
    assert "forty" in found.text
    assert await sources(search, "laptop") == []


async def test_only_what_is_new_is_embedded(documents, folder):
    """Unchanged passages keep their vectors, and a folder in which nothing changed is not built again."""
    embedder = Embedder()
    assert build(documents, folder, embedder).embedded == 4
    again = build(documents, folder, embedder)
    assert (again.is_new, again.embedded) == (False, 0)
    (documents / "hr/new.md").write_text("# New\n\nA new rule.")
    (documents / "hr/pay.md").write_text("# Pay\n\nWages are paid weekly.")
    assert build(documents, folder, embedder).embedded == 2
    assert len(embedder.texts) == 6


async def test_searches_go_on_while_it_is_rebuilt(tmp_path, search, documents, folder):
    """Readers see the old version or the new one, never half of one, and never an error."""
    over = threading.Event()

    def rebuild():
        for number in range(12):
            (documents / "hr/leave.md").write_text(f"# Leave\n\nEvery employee has {number} days of holiday.")
            build(documents, folder, None)
        over.set()

    building = asyncio.create_task(asyncio.to_thread(rebuild))
    seen = 0
    while not over.is_set():
        assert (await sources(search, "holiday"))[0] == "hr/leave.md"
        seen += 1
        await asyncio.sleep(0)
    await building
    assert seen > 0
    assert len([entry for entry in folder.path.iterdir() if entry.is_dir()]) <= 2


def test_two_builders_at_once(documents, folder, monkeypatch):
    """The second is refused, and says why."""
    inner = []

    def build_again(*_args):
        with pytest.raises(SettingsError, match="another process"):
            build(documents, folder, None)
        inner.append(True)

    monkeypatch.setattr(indexing.words, "write", build_again)
    build(documents, folder, None)
    assert inner


def test_documents_that_cannot_be_read_are_named(documents, folder, monkeypatch):
    """Too large, or no UTF-8: left out, and said so; the others are indexed. Links lead nowhere."""
    (documents / "latin.txt").write_bytes(b"caf\xe9")
    (documents / "large.txt").write_text("x" * 200)
    (documents / "link.txt").symlink_to("/etc/hostname")
    monkeypatch.setattr(indexing, "_MOST_DOCUMENT_BYTES", 150)
    built = build(documents, folder, None)
    assert sorted(line.partition(":")[0] for line in built.skipped) == ["'latin.txt'", "large.txt"]
    assert built.facts.documents == 4


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "x" * 65])
def test_store_names_stay_in_their_folder(tmp_path, name):
    """A name that is no plain one is refused."""
    with pytest.raises(SettingsError):
        IndexFolder(tmp_path, name)


async def test_an_index_that_is_damaged(tmp_path, search, folder):
    """What cannot be opened is an error that names the store, not a crash."""
    current = folder.current()
    for file in (current / "words").iterdir():
        file.write_bytes(b"damaged")
    with pytest.raises(RetrievalFailed, match="handbook"):
        await FileSearch(tmp_path / "state", "handbook", None).search("x", 1, None, None)


def test_facts_are_written_down(documents, folder):
    """What was built is in the folder, for people and for the next build."""
    facts = build(documents, folder, Embedder()).facts
    assert json.loads((folder.current() / "facts.json").read_text())["passages"] == facts.passages == 4
