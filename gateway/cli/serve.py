"""`firstdraft serve`: settings in, gateway out."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.settings import SETTINGS, Setting, Settings, load_settings
from gateway.telemetry import log

if TYPE_CHECKING:
    from gateway.server.run import Listening


def _option(setting: Setting) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    text = f"{setting.help} [{setting.variable}; default: {setting.default}]"
    if setting.is_switch:
        return click.option(f"{setting.flag}/--no-{setting.flag.removeprefix('--')}", default=None, help=text)
    return click.option(setting.flag, metavar=setting.metavar, default=None, help=text)


def _all_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    for setting in reversed(SETTINGS):
        command = _option(setting)(command)
    return command


@click.command(epilog="Each setting can be a variable in the environment too; the flag wins.")
@_all_settings
def serve(**flags: str | bool | None) -> None:
    """Run the gateway."""
    settings = load_settings(flags, os.environ, home=home())
    log.configure(level=settings.log_level, format=settings.log_format)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    from gateway.server import run  # what takes long to load is loaded once it is needed
    from gateway.server.garbage import collect_seldom

    collect_seldom()
    people = log.for_people(settings.log_format, sys.stderr.buffer)
    await run.serve(settings, (lambda found: announce(settings, found)) if people else None)


def announce(settings: Settings, found: Listening) -> None:
    """Tell the person at the terminal where the gateway is, and what it serves."""
    policy = found.policy
    count = policy.counts
    click.echo(f"Firstdraft listens on {found.url}   (OpenAI base URL: {found.url}/v1)")
    parts = ", ".join(f"{count[name]} {name}" for name in ("backends", "models", "routes", "constraints", "tenants"))
    click.echo(f"  policy  {settings.policies} at version {policy.version}: {parts}")
    click.echo(f"  state   {settings.state}")
    if policy.keyless_tenant is not None:
        who = f"requests without one are tenant {policy.keyless_tenant!r}, on loopback only"
        click.echo(f"  keys    none needed: {who}; {count['keys']} known")
    else:
        click.echo(f"  keys    {count['keys']} known; `firstdraft keys new TENANT` makes one")
    click.echo("  stop    Ctrl-C: running answers end first; twice: at once")


def home() -> Path | None:
    """The user's home folder; None where there is none."""
    try:
        return Path.home()
    except RuntimeError:
        return None
