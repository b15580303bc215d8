"""`firstdraft policy prove`, `test` and `diff`: what is so for all requests, for named ones, and for recorded ones."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.policy_folder import DIRECTORY, FOLDER, JSON, load

if TYPE_CHECKING:
    from gateway.policy.facts import Facts
    from gateway.routing.compare import Comparison
    from gateway.routing.prove import Leak, Proof


@click.command()
@DIRECTORY
@click.option("--most-choices", type=click.IntRange(min=1_000), default=200_000, show_default=True, help="Effort.")
@JSON
def prove(*, directory: Path, most_choices: int, as_json: bool) -> None:
    """Check the invariants of DIR for all requests that there could be.

    Fallbacks, drafts and the downgrade for a spent budget are included. A broken invariant is shown with a request that
    `policy explain` replays. The exit status is 0 when every invariant holds, 1 when one is broken, and 2 when one
    could not be proved. The gateway loads no policy that breaks an invariant.
    """
    from gateway.routing import prove as proving

    policy = load(directory)
    started = time.perf_counter()
    proof = proving.prove(policy, most_choices=most_choices)
    took_s = time.perf_counter() - started
    if as_json:
        click.echo(json.dumps(_proof(proof, took_s)))
    else:
        for outcome in proof.outcomes:
            click.echo(proving.told(outcome))
            if outcome.leak is not None:
                click.echo(f"  replay: {_replay(outcome.leak, directory)}")
        if not proof.outcomes:
            click.echo(f"{directory} has no invariants; nothing to prove")
        else:
            number = sum(outcome.verdict == "holds" for outcome in proof.outcomes)
            click.echo(
                f"{number} of {len(proof.outcomes)} invariants hold, over {proof.classes:,} classes of requests "
                f"({proof.choices:,} choices, {took_s:.2f} s)"
            )
    verdicts = {outcome.verdict for outcome in proof.outcomes}
    sys.exit(1 if "broken" in verdicts else 2 if "not proved" in verdicts else 0)


def _replay(leak: Leak, directory: Path) -> str:
    import shlex

    from gateway.routing.prove import options

    return shlex.join(["firstdraft", "policy", "explain", *options(leak.facts), "--policies", str(directory)])


def _proof(proof: Proof, took_s: float) -> dict[str, object]:
    from gateway.routing.prove import options

    outcomes = []
    for outcome in proof.outcomes:
        leak = outcome.leak
        found = None
        if leak is not None:
            found = {
                "deployment": leak.deployment,
                "role": leak.role,
                "route": leak.route,
                "reason": leak.reason,
                "explain": options(leak.facts),
            }
        outcomes.append({"invariant": outcome.invariant, "verdict": outcome.verdict, "leak": found, "why": outcome.why})
    return {
        "ok": proof.holds,
        "policy_version": proof.policy_version,
        "classes": proof.classes,
        "choices": proof.choices,
        "seconds": round(took_s, 3),
        "invariants": outcomes,
    }


@click.command()
@DIRECTORY
@JSON
def test(*, directory: Path, as_json: bool) -> None:
    """Run the cases in DIR/tests/*.yaml: given these facts, expect this decision.

    The exit status is 0 when all cases pass, and 1 when one does not or cannot be read.
    """
    from gateway.errors import PolicyError
    from gateway.policy.cases import read_cases
    from gateway.routing.trial import run

    policy = load(directory)
    try:
        cases = read_cases(directory, policy)
    except PolicyError as problem:
        raise click.ClickException(f"the cases cannot be run:\n{problem.message}") from None
    verdicts = run(policy, cases)
    failed = [verdict for verdict in verdicts if verdict.differences]
    if as_json:
        rows = [
            {"case": found.case, "file": found.file, "line": found.line, "differences": list(found.differences)}
            for found in verdicts
        ]
        click.echo(json.dumps({"ok": not failed, "policy_version": policy.version, "cases": rows}))
    else:
        for verdict in failed:
            click.echo(f"{verdict.file}:{verdict.line}: {verdict.case}")
            for difference in verdict.differences:
                click.echo(f"  {difference}")
        click.echo(f"{len(verdicts) - len(failed)} of {len(verdicts)} cases pass")
    sys.exit(1 if failed else 0)


@click.command()
@click.argument("old", metavar="OLD", type=FOLDER)
@click.argument("new", metavar="NEW", type=FOLDER)
@click.option("--recorded", type=click.Path(path_type=Path), multiple=True, help="Files of decisions, JSON lines.")
@click.option("--state", metavar="DIR", help="The gateway's state folder, where it records them.")
@JSON
def diff(*, old: Path, new: Path, recorded: tuple[Path, ...], state: str | None, as_json: bool) -> None:
    """Make recorded decisions again under OLD and under NEW, and list what would change for whom.

    A gateway records the facts of a share of its decisions in its state folder (`--record-decisions`). The exit status
    is 0 when nothing changes, and 1 when something does.
    """
    from gateway.routing.compare import compare

    facts = _recorded(recorded, state)
    comparison = compare(load(old), load(new), facts)
    if as_json:
        click.echo(json.dumps(_comparison(comparison)))
    else:
        _print_comparison(comparison)
    sys.exit(1 if comparison.changed else 0)


def _recorded(given: tuple[Path, ...], state: str | None) -> list[Facts]:
    from gateway.cli.serve import home
    from gateway.policy.replay import read
    from gateway.settings import load_settings
    from gateway.telemetry.decision_log import files

    paths = list(given)
    if not paths:
        flags: dict[str, str | bool | None] = {"state": state, "policies": "."}
        current, before = files(load_settings(flags, os.environ, home=home()).state)
        paths = [path for path in (before, current) if path.exists()]
        if not paths:
            raise click.ClickException(f"nothing is recorded: there is no {current}; name a file with --recorded")
    found: list[Facts] = []
    for path in paths:
        try:
            with path.open("rb") as lines:
                found += [recorded.facts for recorded in read(lines)]
        except OSError as problem:
            raise click.ClickException(f"{path}: {problem.strerror}") from None
    return found


def _comparison(comparison: Comparison) -> dict[str, object]:
    from gateway.routing.prove import options

    changes = [
        {
            "tenant": change.tenant,
            "feature": change.feature,
            "model": change.model,
            "what": change.what,
            "before": change.before,
            "after": change.after,
            "requests": change.requests,
            "explain": options(change.example),
        }
        for change in comparison.changes
    ]
    return {"requests": comparison.requests, "changed": comparison.changed, "changes": changes}


def _print_comparison(comparison: Comparison) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    click.echo(f"{comparison.changed:,} of {comparison.requests:,} recorded requests would be decided differently")
    if not comparison.changes:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("requests", "tenant", "feature", "model", "what", "before", "after"):
        table.add_column(column, overflow="fold")
    for change in comparison.changes:
        cells = (change.tenant, change.feature, change.model, change.what, change.before or "-", change.after or "-")
        table.add_row(str(change.requests), *(Text(cell) for cell in cells))
    Console(highlight=False).print(table)
