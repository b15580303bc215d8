"""`firstdraft ask`: one question to a running gateway, with the draft on the screen while the final is made."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator

import click
import httpx
import msgspec
from rich.console import Console
from rich.live import Live

from gateway.cli.address import CA, reason, trusted, trusts_environment, url_option
from gateway.cli.answer import Answer, Chunk
from gateway.cli.key import KEY_VARIABLE, key_header
from gateway.wire.sse import SSEDecoder

_TIMEOUT = httpx.Timeout(connect=5.0, read=120.0, write=10.0, pool=5.0)
_FRAMES_PER_SECOND = 12
_FEATURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _feature(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _FEATURE.fullmatch(value):
        raise click.BadParameter("has letters, digits, '_', '-' and '.', 64 at most, and begins with a letter or digit")
    return value


@click.command(epilog=f"The API key, where the gateway wants one, is read from {KEY_VARIABLE}.")
@click.argument("question")
@url_option("Where the gateway is.")
@CA
@click.option("--model", default="large", show_default=True, help="A model's name, as the policy has it.")
@click.option(
    "--draft",
    type=click.Choice(["frames", "reasoning", "off"]),
    default="frames",
    show_default=True,
    help="How to ask for the draft.",
)
@click.option("--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="Longest answer.")
@click.option("--feature", default=None, callback=_feature, help="Ask as this feature of the tenant.")
def ask(
    *, question: str, url: str, ca: str | None, model: str, draft: str, max_tokens: int, feature: str | None
) -> None:
    """Ask a running gateway, and watch the draft become the final."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "stream": True,
        "draft": draft,
    }
    headers = key_header() | ({} if feature is None else {"x-firstdraft-feature": feature})
    try:
        with httpx.Client(
            base_url=url, headers=headers, timeout=_TIMEOUT, verify=trusted(ca), trust_env=trusts_environment(url)
        ) as client:
            answer = _watch(client, body)
    except httpx.HTTPError as error:
        message = f"{url}: {reason(error)}. Is the gateway running? `firstdraft serve` starts one."
        raise click.ClickException(message) from None
    except msgspec.DecodeError as error:
        message = f"{url}: answered something that no Firstdraft gateway says: {error}"
        raise click.ClickException(message) from None
    if answer.error:
        sys.exit(1)


def _watch(client: httpx.Client, body: dict[str, object]) -> Answer:
    answer = Answer()
    console = Console(highlight=False)
    started = time.monotonic()
    with Live(console=console, refresh_per_second=_FRAMES_PER_SECOND, get_renderable=answer.drawn, transient=True):
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code == httpx.codes.OK:
                for chunk in _chunks(response):
                    answer.take(chunk, time.monotonic() - started)
            else:
                answer.error = _refusal(response)
        answer.notes += _notes(client, response, time.monotonic() - started)
    console.print(answer.drawn())
    return answer


def _chunks(response: httpx.Response) -> Iterator[Chunk]:
    decoder = SSEDecoder()
    for data in response.iter_raw():
        for event in decoder.feed(data):
            if event.data != b"[DONE]":
                yield msgspec.json.decode(event.data, type=Chunk)


def _refusal(response: httpx.Response) -> str:
    response.read()
    try:
        error = response.json()["error"]
        text = f"{response.status_code} {error.get('code') or error.get('type')}: {error['message']}"
        is_key = response.status_code == httpx.codes.UNAUTHORIZED
        return f"{text} Here the key is what {KEY_VARIABLE} holds." if is_key else text
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{response.status_code} from something that is no Firstdraft gateway"


def _notes(client: httpx.Client, response: httpx.Response, took_s: float) -> list[str]:
    """What stands below the answer: the decision, the cost, what is left."""
    headers = response.headers
    facts = {name: headers.get(f"x-firstdraft-{name}", "") for name in _DECISION}
    usage = client.get("/v1/firstdraft/usage", params={"request": headers.get("x-request-id", "")})
    below = []
    if usage.status_code == httpx.codes.OK:
        told = msgspec.json.decode(usage.content, type=_Usage)
        last = told.last
        if last is not None:
            facts["deployment"] = last.deployment  # who answered, which the head of a stream may not know yet
            below += [f"failed    {name}: {code}" for name, code in last.failures()]
            tokens = f"{last.input_tokens} tokens in, {last.output_tokens} out, {last.draft_tokens} drafted"
            below.append(f"cost      ${last.cost_usd:.6f} ({tokens}) · {took_s:.2f} s in all")
        below += [f"left      {left}" for left in told.budgets]
    decision = " · ".join(f"{name} {fact}" for name, fact in facts.items() if fact)
    return [f"decision  {decision}", *below] if facts["route"] else below


_DECISION = ("route", "mode", "deployment", "policy", "cache", "no-draft")


class _Budget(msgspec.Struct):
    limit: float
    unit: str
    per: str
    left: float
    resets_in_s: float
    feature: str | None = None

    def __str__(self) -> str:
        of = "" if self.feature is None else f" for {self.feature}"
        if self.unit == "usd":
            return f"${self.left:,.4f} of ${self.limit:,.2f} a {self.per}{of}"
        return f"{self.left:,.0f} of {self.limit:,.0f} {self.unit} a {self.per}{of}"


class _Attempt(msgspec.Struct):
    deployment: str
    outcome: str = ""


_NO_FAILURE = frozenset({"ok", "cancelled", "lost", "running"})


class _Last(msgspec.Struct):
    deployment: str = ""
    attempts: list[_Attempt] = []
    cost_usd: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    draft_tokens: int = 0

    def failures(self) -> list[tuple[str, str]]:
        """Deployments that did not answer, with the code that says why, each once."""
        failed = [(tried.deployment, tried.outcome) for tried in self.attempts if tried.outcome not in _NO_FAILURE]
        return list(dict.fromkeys(failed))


class _Usage(msgspec.Struct):
    budgets: list[_Budget]
    last: _Last | None = None
