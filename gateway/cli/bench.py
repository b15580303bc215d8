"""`firstdraft bench`: what a running gateway does for your own questions."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.address import CA, trusted, trusts_environment, url_option
from gateway.cli.key import KEY_VARIABLE, key_header

_TIMEOUT_S = 120.0


@click.group()
def bench() -> None:
    """Measure a running gateway with your own questions."""


@bench.command("cascade", epilog=f"The API key, where the gateway wants one, is read from {KEY_VARIABLE}.")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@url_option("Where the gateway is.")
@CA
@click.option("--model", default="large", show_default=True, help="A model's name, as the policy has it.")
@click.option("--feature", default="cascade", show_default=True, help="The feature whose route is the cascade.")
@click.option(
    "--reference", default="reference", show_default=True, help="The feature whose route asks the larger model alone."
)
@click.option("--instructions", default="", help="A system message before each question.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Longest answer.")
@click.option(
    "--shots", type=click.IntRange(min=0), default=0, help="So many answered questions of the file as examples."
)
@click.option("--limit", type=click.IntRange(min=1), default=None, help="The first so many questions of each file.")
@click.option("--skip", type=click.IntRange(min=0), default=0, help="But for so many at its beginning.")
def cascade(
    *,
    files: tuple[Path, ...],
    url: str,
    ca: str | None,
    model: str,
    feature: str,
    reference: str,
    instructions: str,
    max_tokens: int,
    shots: int,
    limit: int | None,
    skip: int,
) -> None:
    """Ask each question twice: the cascade, and the larger model alone; say what the cascade changes.

    FILES hold questions: CSV with a column `question` or `prompt` (and `answer`, for --shots), or JSON lines with these
    or with `turns`. A table tells how many answers were the edge's, how many of those say the same as the larger
    model's (the verdict `confirmed`), what all of it cost with and without the cascade, and how long it took.
    """
    import httpx
    from rich.console import Console

    from gateway.cli import bench_cascade as run

    headers = {"cache-control": "no-store", **key_header()}
    client = httpx.Client(
        base_url=url, headers=headers, timeout=_TIMEOUT_S, verify=trusted(ca), trust_env=trusts_environment(url)
    )
    asking = run.Asking(client=client, model=model, instructions=instructions, max_tokens=max_tokens)
    try:
        sets = {path.stem: run.questions(path, shots=shots, skip=skip, limit=limit) for path in files}
        with client:
            found = run.compare(asking, sets, feature=feature, reference=reference, console=Console(stderr=True))
    except httpx.HTTPError as error:
        message = f"{url}: {str(error) or type(error).__name__}. Is the gateway running?"
        raise click.ClickException(message) from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    Console(highlight=False).print(run.table(found))
