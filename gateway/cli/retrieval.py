"""`firstdraft retrieval`: the index of a `files` store, and a look into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gateway.retrieval.index_folder import IndexFolder

_STATE = click.option(
    "--state",
    type=click.Path(path_type=Path),
    envvar="FIRSTDRAFT_STATE",
    help="The gateway's state folder, in which the index lies.",
)
_STORE = click.option("--store", required=True, help="The store's name in the policy.")


@click.group()
def retrieval() -> None:
    """Documents that answers are drawn from."""


@retrieval.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@_STORE
@_STATE
@click.option("--embeddings", is_flag=True, help="Search by meaning as well: for stores with `embeddings: true`.")
def index(directory: Path, store: str, state: Path | None, *, embeddings: bool) -> None:
    """Index the documents below DIR (text, Markdown, reStructuredText, HTML) for a store of type `files`.

    Gateways go on searching the index of before until the new one is whole, and then use it at once. Only what is new
    is embedded again.
    """
    from gateway.retrieval.indexing import build

    folder = _folder(state, store)
    embedder = None
    if embeddings:
        from gateway.edge.minilm import MiniLM

        embedder = MiniLM()
    built = build(directory, folder, embedder, lambda done, of: click.echo(f"embedded {done:,} of {of:,}", err=True))
    facts = built.facts
    said = "built" if built.is_new else "unchanged"
    by = f", searched by words and by {facts.embedder}" if facts.embedder else ", searched by words"
    click.echo(f"{said}: version {facts.version}, {facts.documents:,} documents, {facts.passages:,} passages{by}")
    for line in built.skipped:
        click.echo(f"left out: {line}", err=True)


@retrieval.command()
@click.argument("query")
@_STORE
@_STATE
@click.option("--top-k", type=click.IntRange(1, 50), default=4, show_default=True, help="How many passages.")
def search(query: str, store: str, state: Path | None, top_k: int) -> None:
    """Show what a store of type `files` has about QUERY."""
    import asyncio

    from gateway.edge.minilm import MiniLM
    from gateway.retrieval.files import FileSearch

    folder = _folder(state, store)
    facts = folder.facts()
    model = MiniLM if facts is not None and facts.embedder else None
    files = FileSearch(folder.path.parent.parent, store, model)
    results = asyncio.run(files.search(query, top_k, None, None))
    for passage in results.passages:
        click.echo(f"{passage.score:.4f}  {passage.source}\n{_indented(passage.text)}\n")
    if not results.passages:
        click.echo("nothing found", err=True)


def _folder(state: Path | None, store: str) -> IndexFolder:
    import os

    from gateway.cli.serve import home
    from gateway.retrieval.index_folder import IndexFolder
    from gateway.settings import default_state

    state = state or default_state(os.environ, home())
    if state is None:
        raise click.UsageError("--state has to be given, for this user has no home folder")
    return IndexFolder(state, store)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text[:400].splitlines())
