"""The key that commands send to a running gateway."""

from __future__ import annotations

import os

import click

KEY_VARIABLE = "FIRSTDRAFT_KEY"


def key_header() -> dict[str, str]:
    """The header with the key of the environment; nothing where there is none.

    Raises:
        click.ClickException: no header can hold it; its signs are not shown.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise click.ClickException(
            f"{KEY_VARIABLE} holds signs that are in no key: was all of it, and only it, copied?"
        )
    return {"authorization": f"Bearer {key}"}
