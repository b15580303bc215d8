"""`firstdraft keys`: API keys of tenants."""

from __future__ import annotations

import re

import click

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        message = "has letters, digits, '.', '_' and '-', 64 at most, and begins with a letter or digit"
        raise click.BadParameter(message)
    return value


@click.group()
def keys() -> None:
    """API keys of tenants."""


@keys.command()
@click.argument("tenant", callback=_name)
@click.option("--name", default="default", show_default=True, callback=_name, help="What logs call this key.")
def new(tenant: str, name: str) -> None:
    """Make a key for TENANT, and show it once.

    The key goes to standard output, what to do with it to standard error. Nothing is stored: policy gets the hash.
    """
    from gateway.tenants.keys import make_key

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
