"""Every way in which a backend is made to fail, by name: what the fault table has as its rows.

A fault is a script for the HTTP server (`scripted`), acts for the one on bare sockets (`raw`), or a place where nobody
answers. Where whole answers and streams fail differently, each has its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from tests.upstream.raw import Act
from tests.upstream.script import Script

TEXT = "Grüße from a backend 🙂 that says what it is told."
"""What a backend answers that answers."""

Nowhere = Literal["refused", "reset", "no tls", "untrusted"]
Fate = Script | tuple[Act, ...] | Nowhere


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row. `harmless`: the answer is there all the same, and the client gets it."""

    plain: Fate
    streamed: Fate
    harmless: bool = False
    calls: int = 2
    """The most requests that the backend may get for one of the gateway's."""
    limits: str = "connect: 5s, first_token: 10s, idle: 10s, total: 20s"


def _both(fate: Fate, **more: object) -> Fault:
    return Fault(plain=fate, streamed=fate, **more)  # type: ignore[arg-type]


def _status(status: int, headers: dict[str, str] | None = None, **more: object) -> Fault:
    return _both(Script(status=status, headers=headers or {}), **more)


def _chunk(delta: dict[str, object], reason: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return json.dumps({**head, "choices": [choice], **more}, ensure_ascii=False).encode()


def _answer() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 11, "completion_tokens": 9, "total_tokens": 20}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**head, "choices": [choice], "usage": usage}, ensure_ascii=False).encode()


_ROLE = _chunk({"role": "assistant", "content": ""})
_HI = b"data: " + _chunk({"content": "Hi"}) + b"\n\n"
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: "
_JSON_HEAD, _SSE_HEAD = _OK + b"application/json\r\n", _OK + b"text/event-stream\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
_ERROR = {"message": "the model fell over", "type": "server_error", "code": 503}
_HTML = Script(body=b"<html><body>Please log in</body></html>", content_type="text/html")
_QUICK = "connect: 1s, first_token: 1500ms, idle: 1s, total: 2500ms"


def _sized(piece: bytes) -> bytes:
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


def _bytewise(data: bytes) -> tuple[Act, ...]:
    """One byte a second."""
    acts: list[Act] = []
    for index in range(len(data)):
        acts += [data[index : index + 1], 1.0]
    return tuple(acts)


FAULTS: dict[str, Fault] = {
    # --- no connection
    "connection refused": _both("refused"),
    "connection reset at once": _both("reset"),
    "TLS handshake fails": _both("no tls"),
    "TLS certificate that nobody signed": _both("untrusted"),
    # --- statuses
    "400": _status(400, calls=1),
    "401": _status(401, calls=1),
    "403": _status(403, calls=1),
    "404": _status(404, calls=1),
    "404 with a proxy's HTML": _both(Script(status=404, body=b"<html>Not Found</html>", content_type="text/html")),
    "408": _status(408),
    "409": _status(409),
    "413": _status(413, calls=1),
    "422": _status(422, calls=1),
    "429 with `retry-after: 7`": _status(429, {"retry-after": "7"}, calls=1),
    "429 without": _status(429),
    "500": _status(500),
    "502 with a proxy's HTML": _both(Script(status=502, body=b"<html>Bad Gateway</html>", content_type="text/html")),
    "503 with `retry-after: 7`": _status(503, {"retry-after": "7"}, calls=1),
    "529": _status(529),
    "redirect": _both(Script(status=302, body=b"", headers={"location": "http://127.0.0.1:1/"})),
    # --- not an answer
    "HTML with status 200": _both(_HTML),
    "wrong content type": _both(Script(content_type="text/plain")),
    "empty body": Fault(plain=Script(body=b""), streamed=(_SSE_HEAD + b"content-length: 0\r\n\r\n",)),
    "garbage in place of JSON": Fault(
        plain=Script(body=b"{not json"),
        streamed=Script(first_events=(b"{garbage",)),
    ),
    "JSON without an answer": Fault(plain=Script(body=b"{}"), streamed=Script(body=b"{}")),
    "no HTTP": _both((b"SSH-2.0-OpenSSH_9.9\r\n", "hold")),
    "chunks whose sizes are none": Fault(
        plain=(_JSON_HEAD + _CHUNKED + b"zz\r\n{}\r\n", "hold"),
        streamed=(_SSE_HEAD + _CHUNKED + b"zz\r\n" + _HI, "hold"),
    ),
    "a head without end": _both((_OK + b"text/html\r\n" + b"x-more: yes\r\n" * 20_000, "hold")),
    # --- cut
    "cut before the head": _both(Script(cut="before_head")),
    "cut in the head": _both(Script(cut="in_head")),
    "cut after the head": _both(Script(cut="after_head")),
    "cut after metadata events": Fault(
        plain=(_JSON_HEAD + b"content-length: 500\r\n\r\n ",),
        streamed=(_SSE_HEAD + _CHUNKED + _sized(b"data: " + _ROLE + b"\n\n"),),
    ),
    "cut after some tokens": Fault(plain=Script(cut_after=90), streamed=Script(text=TEXT, cut_after=3)),
    "reset after some tokens": Fault(
        plain=Script(cut_after=90, reset=True), streamed=Script(text=TEXT, cut_after=3, reset=True)
    ),
    "clean end in mid-answer": Fault(
        plain=(_JSON_HEAD + b"connection: close\r\n\r\n" + _answer()[:120],),
        streamed=Script(text=TEXT, finish_reason=None, done=False),
    ),
    "no finish_reason": _both(Script(text=TEXT, finish_reason=None)),
    # --- time
    "stall before the head": _both(Script(stall_after=-1), limits=_QUICK),
    "stall after the head": Fault(
        plain=(_JSON_HEAD + b"content-length: 500\r\n\r\n", "hold"), streamed=Script(stall_after=0), limits=_QUICK
    ),
    "stall after some tokens": Fault(
        plain=(_JSON_HEAD + b"content-length: 500\r\n\r\n" + _answer()[:90], "hold"),
        streamed=Script(text=TEXT, stall_after=3),
        limits="first_token: 6s, idle: 1s, total: 12s",
    ),
    "one byte a second": Fault(
        plain=(_JSON_HEAD + b"content-length: 500\r\n\r\n", *_bytewise(_answer()[:9])),
        streamed=(_SSE_HEAD + _CHUNKED + _sized(_HI), *_bytewise(_sized(b"data: " + _chunk({"content": "no"})))),
        limits="first_token: 5s, idle: 1500ms, total: 6s",
    ),
    "comments and nothing else": Fault(
        plain=(_JSON_HEAD + _CHUNKED, *[_sized(b" "), 0.05] * 200),
        streamed=(_SSE_HEAD + _CHUNKED, *[_sized(b": ping\n\n"), 0.05] * 200),
        limits=_QUICK,
    ),
    # --- too much
    "far more than was asked for": Fault(
        plain=Script(text=TEXT * 1_000), streamed=Script(text=TEXT, chunks=10_000_000), limits="total: 30s"
    ),
    "an event of 5 MB": _both(Script(text="x" * 5_000_000)),
    # --- errors in answers
    "error object with status 200": Fault(
        plain=Script(body=json.dumps({"error": _ERROR}).encode()),
        streamed=Script(raw=(b"data: " + json.dumps({"error": _ERROR}).encode() + b"\n\n",)),
    ),
    "error object after some tokens": Fault(
        plain=Script(body=json.dumps({"error": _ERROR}).encode()),
        streamed=Script(text=TEXT, error_event={"error": _ERROR}),
    ),
    "garbage after some tokens": Fault(
        plain=Script(body=_answer()[:-9] + b"}}"), streamed=(_SSE_HEAD + _CHUNKED + _sized(_HI + b"data: {gar\n\n"),)
    ),
    # --- odd, and no fault
    "no `[DONE]`": _both(Script(text=TEXT, done=False), harmless=True),
    "split UTF-8": _both(Script(text=TEXT, fragment=1), harmless=True),
    "split `\\r\\n`": _both(Script(text=TEXT, line_end="\r\n", fragment=3), harmless=True),
    "comments between events": _both(Script(text=TEXT, comments=True), harmless=True),
    "multi-line data": _both(Script(text=TEXT, multiline=True), harmless=True),
    "usage twice, and on every event": _both(Script(text=TEXT, usage="every"), harmless=True),
    "no usage": _both(Script(text=TEXT, usage="none"), harmless=True),
    "gzip that was not asked for": _both(Script(text=TEXT, coding="gzip"), harmless=True),
    "`stream_options` refused": _both(Script(text=TEXT, refuses_usage_option=True), harmless=True),
}
