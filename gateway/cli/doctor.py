"""`firstdraft doctor`: which phase is slow, at the edge or at a backend, and what to do about it."""

from __future__ import annotations

import sys
import time

import click
import httpx

from gateway.cli.address import CA, reason, trusted, trusts_environment, url_option
from gateway.cli.key import KEY_VARIABLE, key_header
from gateway.telemetry.diagnosis import PHASES, Deployment, Diagnosis, Scrape, diagnose

_LONGEST_ANSWER_S = 10.0


@click.command(epilog=f"Where /metrics is on the admin surface, its key is read from {KEY_VARIABLE}.")
@url_option("Where the gateway is; its admin surface, where /metrics is there.")
@CA
@click.option("--for", "for_s", type=click.FloatRange(min=0), default=0.0, help="Watch for so many seconds.")
def doctor(*, url: str, ca: str | None, for_s: float) -> None:
    """Say which phase is slow, where, and what to do about it.

    From a running gateway's metrics, since its start or (`--for 30`) while it is watched. Exit status 1 when it cannot
    be reached.
    """
    scrape = Scrape(_metrics(url, ca))
    if for_s:
        time.sleep(for_s)
        scrape = Scrape(_metrics(url, ca), scrape)
    _show(diagnose(scrape))


def _metrics(url: str, ca: str | None) -> str:
    try:
        with httpx.Client(
            base_url=url,
            headers=key_header(),
            timeout=_LONGEST_ANSWER_S,
            verify=trusted(ca),
            trust_env=trusts_environment(url),
        ) as client:
            response = client.get("/metrics")
            if response.status_code == httpx.codes.NOT_FOUND:
                response = client.get("/admin/metrics")  # `--metrics-on admin`, without a port of its own
    except httpx.HTTPError as error:
        click.echo(f"{url} cannot be reached: {reason(error)}", err=True)
        sys.exit(1)
    if response.status_code == httpx.codes.UNAUTHORIZED:
        click.echo(f"{url} shows its metrics to the admin key alone: set {KEY_VARIABLE}", err=True)
        sys.exit(1)
    if response.status_code == httpx.codes.NOT_FOUND:
        click.echo(f"{url} has no metrics: they may be on the admin surface; name its port with --url", err=True)
        sys.exit(1)
    if response.status_code != httpx.codes.OK or "firstdraft_info" not in response.text:
        click.echo(f"{url} answers, and is no Firstdraft gateway", err=True)
        sys.exit(1)
    return response.text


def _show(diagnosis: Diagnosis) -> None:
    for kind, (p50, p95) in diagnosis.first_s.items():
        click.echo(f"first token of the {kind}: p50 {_time(p50)}, p95 {_time(p95)} (upper bounds)")
    for one in diagnosis.deployments:
        click.echo(_line(one))
    if not diagnosis.deployments:
        click.echo("Nothing was asked: there is nothing to say.")
    elif not diagnosis.findings:
        click.echo("Too little was asked to call anything slow, and nothing fails.")
    for number, finding in enumerate(diagnosis.findings, 1):
        click.echo(f"{number}. {finding}")


def _line(one: Deployment) -> str:
    phases = [
        f"{phase} {_time(one.mean_s[phase])} (p95 {_time(one.p95_s[phase])})" for phase in PHASES if phase in one.mean_s
    ]
    failed = sum(one.failed.values())
    facts = [f"{one.attempts} attempts", *([f"{failed} failed"] if failed else []), *phases]
    return f"{one.name} ({one.place}): {', '.join(facts)}"


def _time(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"
