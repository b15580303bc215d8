"""Where a running gateway is: the `--url` of commands that talk to one."""

from __future__ import annotations

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


def trusts_environment(url: str) -> bool:
    """Whether a proxy that the environment names is to be used: it is for the world outside, not for this machine."""
    return httpx.URL(url).host not in _LOOPBACK
