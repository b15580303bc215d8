"""`firstdraft policy`: the group of all commands about policies; `check` and `variables` are in here."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from gateway.cli.policy_folder import DIRECTORY, JSON

if TYPE_CHECKING:
    from gateway.errors import Mistake

_ELSEWHERE: Mapping[str, str] = {
    "explain": "gateway.cli.policy_explain",
    "prove": "gateway.cli.policy_proof",
    "test": "gateway.cli.policy_proof",
    "diff": "gateway.cli.policy_proof",
    "schema": "gateway.cli.policy_schema",
    "status": "gateway.cli.policy_live",
    "rollback": "gateway.cli.policy_live",
}
"""Commands of the group that stand in other modules, imported when they are asked for."""


class _PolicyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_ELSEWHERE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _ELSEWHERE.get(cmd_name)
        if module is None:
            return super().get_command(ctx, cmd_name)
        return cast("click.Command", getattr(importlib.import_module(module), cmd_name))


@click.group(cls=_PolicyGroup)
def policy() -> None:
    """Check policies, and explain what they decide."""


@policy.command()
@DIRECTORY
@click.option("--strict", is_flag=True, help="Take warnings for mistakes.")
@JSON
def check(*, directory: Path, strict: bool, as_json: bool) -> None:
    """Load DIR (default: policies), check its invariants, and report every mistake.

    The exit status is 0 when the policy can be used, and 1 when it cannot. A warning is about something that is allowed
    and most likely not meant. Environment variables that the policy names have to be set, as for `firstdraft serve`.
    """
    from gateway.errors import PolicyError
    from gateway.routing.proven import load_proven

    try:
        loaded = load_proven(directory, os.environ)
        _refuse_warnings(loaded.warnings if strict else ())
    except PolicyError as problem:
        if as_json:
            click.echo(json.dumps({"ok": False, "mistakes": _places(problem.mistakes)}))
        else:
            click.echo(problem.message, err=True)
            number = len(problem.mistakes)
            click.echo(f"{number} mistake{'' if number == 1 else 's'}: {directory} cannot be used", err=True)
        sys.exit(1)
    if as_json:
        warnings = {"warnings": _places(loaded.warnings)} if loaded.warnings else {}
        click.echo(json.dumps({"ok": True, "version": loaded.version, **loaded.counts, **warnings}))
        return
    for warning in loaded.warnings:
        click.echo(f"{warning} (warning)", err=True)
    counts = ", ".join(
        f"{number} {name.removesuffix('s') if number == 1 else name}" for name, number in loaded.counts.items()
    )
    click.echo(f"{directory} is right: version {loaded.version}; {counts}")


def _refuse_warnings(warnings: Sequence[Mistake]) -> None:
    from gateway.errors import PolicyError

    if warnings:
        raise PolicyError(list(warnings))


def _places(mistakes: Sequence[Mistake]) -> list[dict[str, str | int]]:
    return [
        {"file": found.file, "line": found.line, "column": found.column, "message": found.message} for found in mistakes
    ]


@policy.command()
@JSON
def variables(*, as_json: bool) -> None:
    """List what a condition (`when`) can ask about."""
    from gateway.policy.facts import VARIABLES

    if as_json:
        click.echo(json.dumps({known.name: {"type": known.type, "meaning": known.meaning} for known in VARIABLES}))
        return
    for known in VARIABLES:
        click.echo(f"{known.name:<24}{known.type:<22}{known.meaning}")
