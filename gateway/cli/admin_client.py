"""Commands against the admin surface of a running gateway: where it is, and the key for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import httpx

from gateway.cli.address import GatewayUrl, reason, trusted, trusts_environment
from gateway.cli.key import KEY_VARIABLE, key_header

_ASK_S = 10.0


def admin_option(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The `--admin` of a command; the admin key is read from `FIRSTDRAFT_KEY`."""
    return click.option(
        "--admin",
        "admin_url",
        type=GatewayUrl(),
        required=required,
        metavar="URL",
        help=f"A gateway's admin surface, such as http://127.0.0.1:8081; its key is read from {KEY_VARIABLE}.",
    )


def ask_admin(method: str, url: str, path: str, ca: str | None, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the admin API answers. An error is shown with its message, and ends the command."""
    headers = key_header()
    try:
        answer = httpx.request(
            method,
            f"{url}/admin/v1/{path}",
            json=body,
            headers=headers,
            timeout=_ASK_S,
            verify=trusted(ca),
            trust_env=trusts_environment(url),
        )
        found: dict[str, Any] = answer.json()
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise click.ClickException(f"{url} wants the admin key, which is read from {KEY_VARIABLE}")
        if answer.is_error:
            raise click.ClickException(f"{answer.status_code}: {found['error']['message']}")
    except httpx.HTTPError as error:
        raise click.ClickException(f"{url} cannot be reached: {reason(error)}") from None
    except (ValueError, KeyError, TypeError):
        raise click.ClickException(f"{url} answers, and is no admin surface of Firstdraft") from None
    return found
