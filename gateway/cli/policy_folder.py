"""What all commands about a policy folder share: the folder's argument, `--json`, and loading."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gateway.policy.compiled import CompiledPolicy

DEFAULT_FOLDER = "policies"
FOLDER_VARIABLE = "FIRSTDRAFT_POLICIES"
FOLDER = click.Path(path_type=Path)
DIRECTORY = click.argument("directory", metavar="[DIR]", type=FOLDER, default=DEFAULT_FOLDER, envvar=FOLDER_VARIABLE)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def load(directory: Path) -> CompiledPolicy:
    """The policy of a folder; its invariants are not checked. Raises ClickException with every mistake."""
    from gateway.errors import PolicyError
    from gateway.policy.load import load_policy

    try:
        return load_policy(directory, os.environ)
    except PolicyError as problem:
        raise click.ClickException(f"{directory} cannot be used:\n{problem.message}") from None
