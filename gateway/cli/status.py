"""`firstdraft status`: what `/readyz` says, for people, health checks and scripts that wait."""

from __future__ import annotations

import ssl
import sys
import time
from dataclasses import dataclass, field

import click
import httpx

from gateway.cli.address import CA, reason, trusted, trusts_environment, url_option

_POLL_S = 0.25
_LONGEST_ANSWER_S = 5.0


@click.command()
@url_option("Where the gateway is.")
@CA
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=0.0, help="Wait so many seconds until ready.")
def status(*, url: str, ca: str | None, wait_s: float) -> None:
    """Say whether a running gateway is ready, and what it waits for.

    Exit status 0 when it is ready, 1 when it is not or cannot be reached.
    """
    verify = trusted(ca)
    end = time.monotonic() + wait_s
    shown = ""
    while True:
        seen = _look(url, verify)
        if seen.ready or time.monotonic() >= end:
            click.echo("\n".join([seen.whole, *map(_line, seen.parts.items())]))
            sys.exit(0 if seen.ready else 1)
        waiting_for = "; ".join(_reasons(seen)) or seen.whole
        if waiting_for != shown:
            click.echo(f"waiting: {waiting_for}", err=True)
            shown = waiting_for
        time.sleep(_POLL_S)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look found: the whole in a sentence, and the facts of each part."""

    ready: bool
    whole: str
    parts: dict[str, dict[str, object]] = field(default_factory=dict)


def _look(url: str, verify: ssl.SSLContext | bool) -> _Seen:  # noqa: FBT001 as httpx takes it
    try:
        response = httpx.get(
            f"{url}/readyz", timeout=_LONGEST_ANSWER_S, verify=verify, trust_env=trusts_environment(url)
        )
        body = response.json()
        parts = {name: part for name, part in body.items() if isinstance(part, dict)}
        whole = f"{url} is {body['status']}"
    except httpx.HTTPError as error:
        return _Seen(ready=False, whole=f"{url} cannot be reached: {reason(error)}")
    except (ValueError, KeyError, TypeError, AttributeError):
        return _Seen(ready=False, whole=f"{url} answers, and is no Firstdraft gateway")
    return _Seen(ready=response.status_code == httpx.codes.OK, whole=whole, parts=parts)


def _reasons(seen: _Seen) -> list[str]:
    """Why parts are not ready."""
    return [
        f"{name}: {facts.get('reason') or facts.get('state') or 'not ready'}"
        for name, facts in seen.parts.items()
        if not facts.get("ok")
    ]


def _line(part: tuple[str, dict[str, object]]) -> str:
    name, facts = part
    state = "ok" if facts.get("ok") else "not ok"
    rest = " · ".join(
        f"{key} {_told(value)}" for key, value in facts.items() if key not in {"ok", "unhealthy"} and value
    )
    return f"  {name:8} {state}{' · ' if rest else ''}{rest}"


def _told(value: object) -> str:
    """A fact as people read it: of a list each, of a mapping each with its name."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(fact)}" for name, fact in value.items())
    if isinstance(value, list):
        return "; ".join(map(_told, value))
    return str(value)
