"""`firstdraft status`: what `/readyz` says, for people, health checks and scripts that wait."""

from __future__ import annotations

import sys
import time
from urllib.parse import urlsplit

import click
import httpx

_POLL_S = 0.25
_LONGEST_ANSWER_S = 5.0


@click.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where the gateway is.")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=0.0, help="Wait so many seconds until ready.")
def status(url: str, wait_s: float) -> None:
    """Say whether a running gateway is ready, and what it waits for.

    Exit status 0 when it is ready, 1 when it is not or cannot be reached.
    """
    end = time.monotonic() + wait_s
    shown = ""
    while True:
        ready, lines = _look(url)
        if ready or time.monotonic() >= end:
            click.echo("\n".join(lines))
            sys.exit(0 if ready else 1)
        waiting_for = "; ".join(line.strip() for line in lines if "not ok" in line) or lines[0]
        if waiting_for != shown:
            click.echo(f"waiting: {waiting_for}", err=True)
            shown = waiting_for
        time.sleep(_POLL_S)


def _look(url: str) -> tuple[bool, list[str]]:
    """Whether the gateway is ready, and a line for the whole and for each part."""
    outside = urlsplit(url).hostname not in {"127.0.0.1", "localhost", "::1"}
    try:
        response = httpx.get(f"{url}/readyz", timeout=_LONGEST_ANSWER_S, trust_env=outside)
        body = response.json()
        parts = {name: part for name, part in body.items() if isinstance(part, dict)}
        whole = str(body["status"])
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return False, [f"{url} cannot be reached: {error}"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return False, [f"{url} answers, and is no Firstdraft gateway"]
    return response.status_code == httpx.codes.OK, [f"{url} is {whole}", *map(_line, parts.items())]


def _line(part: tuple[str, dict[str, object]]) -> str:
    name, facts = part
    state = "ok" if facts.get("ok") else "not ok"
    rest = " · ".join(f"{key} {value}" for key, value in facts.items() if key != "ok")
    return f"  {name:8} {state}{' · ' if rest else ''}{rest}"
