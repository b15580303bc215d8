"""`firstdraft policy status` and `rollback`: the policy that is in force, and the one before it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import httpx

from gateway.cli.address import CA, reason, trusted, trusts_environment, url_option
from gateway.cli.policy_folder import JSON

if TYPE_CHECKING:
    from gateway.policy.history import Kept, PolicyHistory

_ASK_S = 10.0


@click.command()
@url_option("The gateway.")
@CA
@JSON
def status(*, url: str, ca: str | None, as_json: bool) -> None:
    """Say which policy a running gateway serves under, and whether it refused a newer one.

    Every worker of every replica on the same store is listed with its version. The exit status is 0 when all have the
    same and nothing was refused, and 1 otherwise.
    """
    try:
        answer = httpx.get(f"{url}/readyz", timeout=_ASK_S, verify=trusted(ca), trust_env=trusts_environment(url))
        found: dict[str, Any] = answer.json()["policy"]
    except httpx.HTTPError as error:
        raise click.ClickException(f"{url} cannot be reached: {reason(error)}") from None
    except (ValueError, KeyError, TypeError):
        raise click.ClickException(f"{url} answers, and is no Firstdraft gateway") from None
    version, refused, workers = found.get("version", ""), found.get("refused"), found.get("workers", {})
    agreed = set(workers.values()) <= {version}
    if as_json:
        click.echo(json.dumps({"version": version, "refused": refused, "workers": workers, "agreed": agreed}))
    else:
        click.echo(f"version  {version}")
        for name, theirs in workers.items():
            click.echo(f"worker   {name}  {theirs}{'' if theirs == version else '  another version'}")
        for line in (refused or "").splitlines():
            click.echo(f"refused  {line}")
    sys.exit(0 if agreed and not refused else 1)


@click.command()
@click.option("--policies", metavar="DIR", help="The policy folder. [FIRSTDRAFT_POLICIES; default: policies]")
@click.option("--state", metavar="DIR", help="The gateway's state folder. [FIRSTDRAFT_STATE]")
@click.option("--to", metavar="VERSION", help="The version to go back to. Default: the last good one before this.")
@click.option("--list", "only_list", is_flag=True, help="List the versions that are kept, and change nothing.")
@JSON
def rollback(*, policies: str | None, state: str | None, to: str | None, only_list: bool, as_json: bool) -> None:
    """Write the last good policy back to the policy folder, where the running gateway takes it up.

    The gateway keeps every policy that came into force in its state folder. If the folder has been refused since, this
    restores what is in force; else what was before it. What is replaced is kept in the state folder, too.
    """
    from gateway.cli.serve import home
    from gateway.policy.history import PolicyHistory
    from gateway.settings import load_settings

    settings = load_settings({"policies": policies, "state": state}, os.environ, home=home())
    history = PolicyHistory(settings.state)
    if only_list:
        _list(history, as_json=as_json)
        return
    kept = _chosen(history, settings.policies, to)
    try:
        replaced = history.restore(kept, settings.policies)
    except OSError as problem:
        message = (
            f"{settings.policies} cannot be written: {problem.strerror or problem}. The files of version "
            f"{kept.version} are in {kept.folder}; put them where this folder comes from."
        )
        raise click.ClickException(message) from None
    if as_json:
        where = None if replaced is None else str(replaced)
        click.echo(json.dumps({"restored": kept.version, "in_force_since": kept.at, "replaced": where}))
        return
    click.echo(f"{settings.policies} is again as in version {kept.version}, in force from {kept.at} (UTC)")
    if replaced is not None:
        click.echo(f"what it replaced is in {replaced}")


def _list(history: PolicyHistory, *, as_json: bool) -> None:
    kept = history.kept()
    if as_json:
        click.echo(json.dumps([{"version": one.version, "at": one.at, "folder": str(one.folder)} for one in kept]))
        return
    if not kept:
        click.echo("no version is kept there: a gateway keeps each that comes into force in its --state", err=True)
    for one in kept:
        click.echo(f"{one.version}  in force from {one.at} (UTC)  {one.folder}")


def _chosen(history: PolicyHistory, directory: Path, to: str | None) -> Kept:
    from gateway.policy.mistakes import suggestion

    chosen = history.choose(directory, to)
    if chosen is not None:
        return chosen
    if to is not None:
        known = [one.version for one in history.kept()]
        raise click.ClickException(f"version {to} is not kept{suggestion(to, known)}")
    raise click.ClickException("no other version is kept: a gateway keeps each that comes into force")
