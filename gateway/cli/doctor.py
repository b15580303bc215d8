"""`firstdraft doctor`: which phase is slow, at the edge or at a backend, and what to do about it."""

from __future__ import annotations

import sys
import time

import click
import httpx
from rich.console import Console
from rich.table import Table

from gateway.cli.address import DEFAULT_URL, GatewayUrl, trusts_environment
from gateway.telemetry.diagnosis import PHASES, Deployment, Diagnosis, Scrape, diagnose

_LONGEST_ANSWER_S = 10.0


@click.command()
@click.option("--url", type=GatewayUrl(), default=DEFAULT_URL, show_default=True, help="Where the gateway is.")
@click.option("--for", "for_s", type=click.FloatRange(min=0), default=0.0, help="Watch for so many seconds.")
def doctor(url: str, for_s: float) -> None:
    """Say which phase is slow, where, and what to do about it.

    From a running gateway's metrics, since its start or (`--for 30`) while it is watched. Exit status 1 when it cannot
    be reached.
    """
    scrape = Scrape(_metrics(url))
    if for_s:
        time.sleep(for_s)
        scrape = Scrape(_metrics(url), scrape)
    _show(diagnose(scrape))


def _metrics(url: str) -> str:
    try:
        response = httpx.get(f"{url}/metrics", timeout=_LONGEST_ANSWER_S, trust_env=trusts_environment(url))
        response.raise_for_status()
    except httpx.HTTPError as error:
        click.echo(f"{url} cannot be read: {error}", err=True)
        sys.exit(1)
    if "firstdraft_info" not in response.text:
        click.echo(f"{url} answers, and is no Firstdraft gateway", err=True)
        sys.exit(1)
    return response.text


def _show(diagnosis: Diagnosis) -> None:
    console = Console(highlight=False)
    for kind, (p50, p95) in diagnosis.first_s.items():
        console.print(f"first token of the {kind}: p50 up to {_time(p50)}, p95 up to {_time(p95)}")
    if diagnosis.deployments:
        console.print(_table(diagnosis.deployments))
    if not diagnosis.deployments:
        console.print("Nothing was asked yet: there is nothing to say.")
    for number, finding in enumerate(diagnosis.findings, 1):
        console.print(f"{number}. {finding}", markup=False)


def _table(deployments: tuple[Deployment, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("deployment", "at", "attempts", "failed"):
        table.add_column(name)
    for phase in PHASES:
        table.add_column(f"{phase} mean/p95", justify="right")
    for one in deployments:
        times = [
            f"{_time(one.mean_s[phase])}/{_time(one.p95_s[phase])}" if phase in one.mean_s else "–" for phase in PHASES
        ]
        failed = f"{sum(one.failed.values()) / one.attempts:.0%}" if one.attempts else "–"
        table.add_row(one.name, one.place, str(one.attempts), failed, *times)
    return table


def _time(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"
