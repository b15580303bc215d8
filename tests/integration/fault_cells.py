"""One cell of the fault table: a request through a mode to a backend with one fault, and what its client saw.

A cell has a deployment of its own (its name tells the backend what to do), so that what the gateway learns of one cell
changes no other. Beside it may stand a second deployment, which answers `SECOND`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import aiohttp

from gateway.errors import BackendError
from gateway.policy import compile_rules
from gateway.policy.compiled import Mode
from tests.upstream.faults import FAULTS, TEXT, Fate, Fault, Nowhere
from tests.upstream.raw import RawUpstream
from tests.upstream.script import Script
from tests.upstream.scripted import ScriptedUpstream

SECOND = "The second deployment answers in its place."
LONGEST_S = 40.0
"""A client that waits longer hangs."""
MODES = tuple(mode for mode in Mode if mode.value not in getattr(compile_rules, "_NOT_YET", {}))
SURFACES = ("chat", "messages", "responses", "completions")
PATHS = {"chat": "chat/completions", "messages": "messages", "responses": "responses", "completions": "completions"}
_LIMIT = {"chat": "max_tokens", "messages": "max_tokens", "responses": "max_output_tokens", "completions": "max_tokens"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """`alone`: no other deployment is left to answer."""

    fault: str
    mode: Mode
    stream: bool
    alone: bool
    surface: str = "chat"
    native: bool = False
    """The backend speaks Messages itself."""

    @property
    def model(self) -> str:
        number = list(FAULTS).index(self.fault)
        ways = ("streamed" if self.stream else "plain", "alone" if self.alone else "second")
        return ".".join((f"f{number}", self.mode, *ways, self.surface, "native" if self.native else "chat"))

    @property
    def script(self) -> Fault:
        return FAULTS[self.fault]

    @property
    def feature(self) -> str:
        """Of the request: it picks the route, and with it the mode."""
        # What answers in its own time must not be overtaken because this machine is busy.
        return "patient" if self.mode is Mode.HEDGE and self.script.harmless else self.mode.value

    @property
    def fate(self) -> Fate:
        return self.script.streamed if self.stream else self.script.plain


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a request: who answered (`answered`, `second`, `edge`), or an error's status and code.

    `begun`: text had come before the error.
    """

    by: str = ""
    status: int = 0
    code: str = ""
    begun: bool = False

    def __str__(self) -> str:
        if self.by:
            return self.by
        return f"text, then `{self.code}`" if self.begun else f"{self.status} `{self.code}`"


class WrongAnswerError(AssertionError):
    """A client was not told what happened: a silent end, another text, an error in no schema."""


class Backends:
    """The servers behind all cells."""

    def __init__(self, http: ScriptedUpstream, raw: RawUpstream, nowhere: dict[Nowhere, str]) -> None:
        self.http = http
        self.raw = raw
        self._nowhere = nowhere
        http.by_model["second"] = Script(text=SECOND)

    @property
    def open(self) -> int:
        """Requests that are being answered."""
        return self.http.open + self.raw.open

    def calls(self, cell: Cell) -> int:
        """How often this cell's backend was asked."""
        seen = sum(received.json.get("model") == cell.model for received in self.http.requests)
        return seen + self.raw.asked.count(cell.model)

    def url(self, cell: Cell) -> str:
        """Where this cell's backend is; it knows from now on what to do."""
        fate = cell.fate
        if isinstance(fate, Script):
            self.http.by_model[cell.model] = fate
            return self.http.base_url
        if isinstance(fate, str):
            return self._nowhere[fate]
        self.raw.by_model[cell.model] = fate
        return self.raw.base_url


def policy(cells: list[Cell], backends: Backends, *, key_sha256: str) -> str:
    """A policy in which each cell is a model, and its feature picks its mode."""
    lines = [
        "backends:",
        "  edge: {type: edge, model: smollm2-135m-instruct, region: local, timeouts: {first_token: 60s}}",
    ]
    good = "timeouts: {connect: 5s, first_token: 20s, idle: 20s, total: 30s}"
    lines.append(f"  second: {{type: openai, base_url: '{backends.http.base_url}', region: eu, {good}}}")
    for number, cell in enumerate(cells):
        kind = "anthropic" if cell.native else "openai"
        limits = f"timeouts: {{{cell.script.limits}}}"
        lines.append(f"  b{number}: {{type: {kind}, base_url: '{backends.url(cell)}', region: eu, {limits}}}")
    lines.append("models:")
    for number, cell in enumerate(cells):
        lines.append(f"  {cell.model}:")
        lines.append(f"    - {{backend: b{number}, model: {cell.model}, price: {{input: 1, output: 2}}}}")
        if not cell.alone:
            lines.append("    - {backend: second, model: second, price: {input: 1, output: 2}}")
    lines.append("routes:")
    for mode in MODES:
        more = {
            Mode.CASCADE: ", cascade: {threshold: 0.99}, draft: {max_tokens: 2}",
            Mode.DRAFT_REFINE: ", draft: {max_tokens: 2, default: frames}",
        }.get(mode, "")
        lines.append(f'  - {{name: {mode}, when: request.feature == "{mode}", mode: {mode}{more}}}')
    if Mode.HEDGE in MODES:
        lines.append('  - {name: patient, when: request.feature == "patient", mode: hedge, hedge: {after: 15s}}')
    budget = "budgets: [{tokens: 1_000_000_000, per: day}]"
    lines += ["tenants:", f"  acme: {{keys: [{{name: prod, sha256: {key_sha256}}}], {budget}}}"]
    return "\n".join(lines) + "\n"


async def ask(session: aiohttp.ClientSession, base_url: str, cell: Cell) -> Seen:
    """Send the cell's request, and look at all of the answer."""
    body: dict[str, object] = {"model": cell.model, "stream": cell.stream, _LIMIT[cell.surface]: 64}
    if cell.surface == "responses":
        body |= {"input": "Say hello.", "store": False}
    elif cell.surface == "completions":
        body["prompt"] = "Say hello."
    else:
        body["messages"] = [{"role": "user", "content": "Say hello."}]
    if cell.mode is Mode.EDGE_ONLY:
        body[_LIMIT[cell.surface]] = 2
    url, headers = f"{base_url}/{PATHS[cell.surface]}", {"x-firstdraft-feature": cell.feature}
    timeout = aiohttp.ClientTimeout(total=LONGEST_S)
    try:
        async with session.post(url, json=body, headers=headers, timeout=timeout) as response:
            data = await response.read()
    except TimeoutError:
        raise WrongAnswerError("it hangs") from None
    except aiohttp.ClientPayloadError:
        raise WrongAnswerError("the connection was cut, and nobody said why") from None
    if response.status != 200:
        return _refusal(cell, response, data)
    text, error = _STREAMS[cell.surface](data) if cell.stream else (_WHOLES[cell.surface](json.loads(data)), None)
    if error is not None:
        return Seen(status=_status(error), code=_code(error), begun=bool(text))
    return _answer(cell, text, response.headers.get("x-firstdraft-deployment", ""))


def _answer(cell: Cell, text: str, deployment: str) -> Seen:
    if deployment.startswith("edge/"):
        return Seen("edge")
    # Where a draft came first, the headers were sent before anyone knew who would answer.
    if deployment == "second/second" or (not deployment and text == SECOND):
        if text != SECOND:
            raise WrongAnswerError(f"the second deployment's answer became {text[:80]!r}")
        return Seen("second")
    if not cell.script.harmless or text != TEXT:
        raise WrongAnswerError(f"this passed for an answer: {text[:80]!r}")
    return Seen("answered")


def _refusal(cell: Cell, response: aiohttp.ClientResponse, data: bytes) -> Seen:
    body = json.loads(data)
    error = body["error"]
    if cell.surface == "messages" and (body.get("type") != "error" or not error.get("type")):
        raise WrongAnswerError(f"this is no error of Messages: {data[:200]!r}")
    if not error.get("message"):
        raise WrongAnswerError(f"an error without a word: {data[:200]!r}")
    return Seen(status=response.status, code=_code(error))


def _code(error: dict[str, object]) -> str:
    return str(error.get("code") or error.get("type"))


def _status(error: dict[str, object]) -> int:
    """The status that an error in a stream would have had before it began."""
    said = re.search(r"(?:scripted|answered with error) (\d{3})", str(error.get("message")))
    if said:
        return int(said.group(1))
    for kind in BackendError.__subclasses__():
        if kind.code == error.get("code"):
            return kind.status
    return int(str(error.get("code") or 0))


# --- complete or not: in each schema ----------------------------------------------------------------------------------


def _events(data: bytes) -> list[tuple[str, str]]:
    """Names and payloads. Whatever is not a whole event is a silent end."""
    if not data.endswith(b"\n\n"):
        raise WrongAnswerError(f"the stream ends in the middle of an event: {data[-80:]!r}")
    found = []
    for event in data.decode().split("\n\n")[:-1]:
        lines = [line for line in event.split("\n") if not line.startswith(":")]
        named = {key: value for key, _, value in (line.partition(": ") for line in lines)}
        if "data" in named:
            found.append((named.get("event", ""), named["data"]))
    return found


def _chat_stream(data: bytes, *, legacy: bool = False) -> tuple[str, dict[str, object] | None]:
    text, reason, done = "", None, False
    for _, payload in _events(data):
        if done:
            raise WrongAnswerError("something comes after [DONE]")
        if payload == "[DONE]":
            done = True
            continue
        chunk = json.loads(payload)
        if "error" in chunk:
            return text, chunk["error"]
        for choice in chunk["choices"]:
            text += (choice["text"] if legacy else choice["delta"].get("content")) or ""
            reason = choice.get("finish_reason") or reason
    if reason is None or not done:
        raise WrongAnswerError(f"a silent end: finish_reason {reason}, [DONE] {done}, {data[-80:]!r}")
    return text, None


def _messages_stream(data: bytes) -> tuple[str, dict[str, object] | None]:
    text, stopped, reason = "", False, None
    for name, payload in _events(data):
        event = json.loads(payload)
        if name == "error":
            return text, event["error"]
        delta = event.get("delta", {})
        text += delta.get("text", "")
        reason = delta.get("stop_reason", reason)
        stopped = stopped or name == "message_stop"
    if not stopped or reason is None:
        raise WrongAnswerError(f"a silent end: {data[-80:]!r}")
    return text, None


def _responses_stream(data: bytes) -> tuple[str, dict[str, object] | None]:
    text, last = "", ""
    for name, payload in _events(data):
        event = json.loads(payload)
        if name == "error":
            return text, event
        if name == "response.failed":
            return text, event["response"]["error"]
        text += event["delta"] if name == "response.output_text.delta" else ""
        last = name
    if last not in {"response.completed", "response.incomplete"}:
        raise WrongAnswerError(f"a silent end: {data[-80:]!r}")
    return text, None


def _response(body: dict[str, object]) -> str:
    if body["status"] not in {"completed", "incomplete"}:
        raise WrongAnswerError(f"status {body['status']}")
    return "".join(part["text"] for item in body["output"] for part in item.get("content", ()))


_STREAMS = {
    "chat": _chat_stream,
    "completions": lambda data: _chat_stream(data, legacy=True),
    "messages": _messages_stream,
    "responses": _responses_stream,
}
_WHOLES = {
    "chat": lambda body: body["choices"][0]["message"]["content"],
    "completions": lambda body: body["choices"][0]["text"],
    "messages": lambda body: "".join(block["text"] for block in body["content"]),
    "responses": _response,
}


def all_cells() -> list[Cell]:
    """The whole table: each fault in each mode on chat, and on the other surfaces in `cloud_only`."""
    ways = [(stream, alone) for stream in (False, True) for alone in (True, False)]
    found = [
        Cell(fault=fault, mode=mode, stream=stream, alone=alone)
        for fault in FAULTS
        for mode in MODES
        for stream, alone in ways
    ]
    others = [cell for cell in found if cell.mode is Mode.CLOUD_ONLY]
    found += [replace(cell, surface=surface) for surface in SURFACES[1:] for cell in others]
    # What is written out by hand is chat's.
    return [cell for cell in found if cell.surface != "completions" or isinstance(cell.fate, Script)]
