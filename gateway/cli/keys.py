"""`firstdraft keys`: API keys of tenants."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import click

from gateway.cli.address import CA
from gateway.cli.admin_client import admin_option, ask_admin

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        message = "has letters, digits, '.', '_' and '-', 64 at most, and begins with a letter or digit"
        raise click.BadParameter(message)
    return value


def _name_or_none(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value is None else _name(context, parameter, value)


@click.group()
def keys() -> None:
    """API keys of tenants."""


@keys.command()
@click.argument("tenant", callback=_name)
@click.option("--name", default="default", show_default=True, callback=_name, help="What logs call this key.")
@click.option("--replaces", callback=_name_or_none, help="With --admin: the key that this one replaces.")
@admin_option(required=False)
@CA
def new(*, tenant: str, name: str, replaces: str | None, admin_url: str | None, ca: str | None) -> None:
    """Make a key for TENANT, and show it once.

    The key goes to standard output, what to do with it to standard error. Nothing is stored: policy gets the hash. With
    --admin it is a key of a tenant of the store, known to all gateways at once; what it replaces works for a day more.
    """
    from gateway.tenants.keys import make_key

    if admin_url is not None:
        body = {"name": name} | ({} if replaces is None else {"replaces": replaces})
        made = ask_admin("POST", admin_url, f"tenants/{tenant}/keys", ca, body)
        click.echo(f"API key {name!r} of tenant {tenant!r}. It is shown only now:\n", err=True)
        click.echo(made["key"])
        return
    if replaces is not None:
        raise click.UsageError("--replaces needs --admin: a key of policy's files is given `not_after` there")
    plain, digest = make_key()
    click.echo(f"API key {name!r} of tenant {tenant!r}. It is shown only now:\n", err=True)
    click.echo(plain)
    click.echo(
        "\nThe gateway knows it once policy has its hash. In policies/tenants.yaml, under `tenants:`\n\n"
        f"  {tenant}:\n"
        f"    keys:\n"
        f"      - {{name: {_quoted(name)}, sha256: {digest}}}\n",
        err=True,
    )


@keys.command("list")
@click.argument("tenant", required=False, callback=_name_or_none)
@admin_option(required=True)
@CA
def list_(*, tenant: str | None, admin_url: str, ca: str | None) -> None:
    """List the keys of all tenants, or of TENANT: names, beginnings of their hashes, and when they end."""
    found = ask_admin("GET", admin_url, "tenants", ca)["tenants"]
    shown = [one for one in found if tenant in {None, one["name"]}]
    if tenant is not None and not shown:
        raise click.ClickException(f"there is no tenant {tenant!r}, in the policy's files or in the store")
    for one in shown:
        state = "disabled" if one["disabled"] else one["refused"]
        for key in one["keys"]:
            ends = "" if key["not_after"] is None else f"  until {_time(key['not_after'])}"
            click.echo(f"{one['name']}  {key['name']}  {key['sha256']}…  {one['source']}{ends}  {state}".rstrip())
    if not any(one["keys"] for one in shown):
        click.echo("there are no keys", err=True)


@keys.command()
@click.argument("tenant", callback=_name)
@click.argument("name", callback=_name)
@admin_option(required=True)
@CA
def revoke(*, tenant: str, name: str, admin_url: str, ca: str | None) -> None:
    """Revoke the key NAME of TENANT, a tenant of the store: all gateways refuse it within a second or two."""
    ask_admin("DELETE", admin_url, f"tenants/{tenant}/keys/{name}", ca)
    click.echo(f"the key {name!r} of tenant {tenant!r} is revoked")


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@keys.command()
def admin() -> None:
    """Make a key for the admin surface, and show it once.

    The key goes to standard output, what the gateway is started with to standard error. Nothing is stored.
    """
    from gateway.tenants.keys import make_key

    plain, digest = make_key()
    click.echo("The admin key. It is shown only now:\n", err=True)
    click.echo(plain)
    click.echo(f"\nStart the gateway with\n\n  FIRSTDRAFT_ADMIN_KEY={digest}\n", err=True)


def _quoted(name: str) -> str:
    """YAML reads some plain names as something else: `on`, `1.5`, `null`."""
    return name if name.isidentifier() and name.lower() not in _WORDS else f'"{name}"'


_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
