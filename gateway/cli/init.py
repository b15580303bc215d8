"""`firstdraft init`: a first policy folder."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
def init(directory: Path) -> None:
    """Write a first policy folder, with comments.

    Nothing that exists is overwritten, and nothing in it is secret: keys come from the environment.
    """
    from gateway.policy import starter

    files = starter.files()
    existing = sorted(name for name in files if (directory / name).exists())
    if existing:
        message = f"{directory} has {', '.join(existing)} already; nothing was written. Name another folder."
        raise click.ClickException(message)
    try:
        for name, text in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            with (directory / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        message = f"{directory}: cannot be written: {error.strerror}"
        raise click.ClickException(message) from None
    click.echo(f"Wrote {len(files)} files to {directory}: {', '.join(files)}")
    click.echo(
        "Next:\n"
        "  1. export OPENAI_API_KEY=…          or FIRSTDRAFT_BACKEND_URL=http://… of any server with OpenAI's API\n"
        f"  2. firstdraft policy check {directory}\n"
        f"  3. firstdraft serve --policies {directory}\n"
        '  4. firstdraft ask "What is the capital of France?"'
    )
