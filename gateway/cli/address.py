"""Where a running gateway is: the `--url` of commands that talk to one."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import click
import httpx

DEFAULT_URL = "http://127.0.0.1:8080"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class GatewayUrl(click.ParamType[str]):
    """The base URL of a gateway; the `/v1` that SDKs want at its end is taken off."""

    name = "URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401 click's signature
        text = str(value).strip().rstrip("/").removesuffix("/v1")
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in {"http", "https"} or not url.host:
            self.fail(f"{value!r} is no URL such as {DEFAULT_URL}", param, ctx)
        return text


def url_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The `--url` of a command."""
    return click.option(
        "--url",
        type=GatewayUrl(),
        default=DEFAULT_URL,
        envvar="FIRSTDRAFT_URL",
        show_envvar=True,
        show_default=True,
        help=text,
    )


CA = click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False),
    envvar="FIRSTDRAFT_CA",
    show_envvar=True,
    help="Certificates, in PEM, that the gateway's is checked with. Default: those that the system trusts.",
)
"""For commands that talk to a gateway over https."""


def trusted(ca: str | None) -> ssl.SSLContext | bool:
    """What a connection's certificate is checked with: httpx' `verify`."""
    if ca is None:
        return True
    try:
        context = ssl.create_default_context(cafile=ca)
    except (ssl.SSLError, OSError):
        raise click.ClickException(f"--ca {ca}: holds no certificate in PEM") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the gateway's own certificate will do, whoever signed it
    return context


def trusts_environment(url: str) -> bool:
    """Whether a proxy that the environment names is to be used: it is for the world outside, not for this machine."""
    return httpx.URL(url).host not in _LOOPBACK


def reason(error: Exception) -> str:
    """Why a gateway could not be asked, and what helps where its certificate is the reason."""
    text = str(error).rstrip(".") or type(error).__name__
    return f"{text}; --ca FILE names the certificate to trust" if "CERTIFICATE_VERIFY_FAILED" in text else text
