"""A backend that replays recorded answers: what `make demo` asks when no real backend is given.

It speaks OpenAI's chat API over HTTP at a realistic pace, and never hides what it is: the model is named
`recorded-gpt-4-1106-preview`, every response has `x-recorded: true`, and when no recorded question is like the one
asked, the answer says so first. The answers are GPT-4's to questions of GSM8K, and those of plain facts in one word
(`tests/data/README.md`).

    python -m tests.upstream.recorded --port 9000 --ttft 0.8 --tokens-per-second 50
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import math
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

MODEL = "recorded-gpt-4-1106-preview"
DATA = Path(__file__).parent.parent / "data"
RECORDINGS = (DATA / "gsm8k_strong_answers.csv", DATA / "plain_facts.csv")
HEADERS = {"x-recorded": "true"}
_ALIKE = 0.5
"""From this likeness on, the recorded question is taken for the one that was asked."""
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Recording:
    """A question and the answer that was recorded for it."""

    question: str
    answer: str
    words: frozenset[str]


class Recordings:
    """Finds the recorded question most like a prompt: overlap of words, rare words count for more."""

    def __init__(self, paths: Sequence[Path] = RECORDINGS) -> None:
        rows = [row for path in paths for row in _rows(path)]
        self._all = [Recording(question, answer, _words(question)) for question, answer in rows]
        seen = Counter(word for recording in self._all for word in recording.words)
        self._weights = {word: math.log(1 + len(self._all) / count) for word, count in seen.items()}
        self._unseen = math.log(1 + len(self._all))

    def answer(self, prompt: str) -> str:
        """The answer to give, with a sentence in front when its question is not the one that was asked."""
        words = _words(prompt)
        likeness, recording = max(
            ((self._likeness(words, each.words), each) for each in self._all), key=lambda found: found[0]
        )
        if likeness >= _ALIKE:
            return recording.answer
        return (
            "(This is a recording, and it holds no answer to that question. The nearest recorded question is: "
            f"“{recording.question}” Its answer:)\n\n{recording.answer}"
        )

    def _likeness(self, left: frozenset[str], right: frozenset[str]) -> float:
        """Weighted Jaccard index, 0..1."""
        both, either = self._weight(left & right), self._weight(left | right)
        return both / either if either else 0.0

    def _weight(self, words: frozenset[str]) -> float:
        return sum(self._weights.get(word, self._unseen) for word in words)


def _rows(path: Path) -> list[tuple[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["question"], row["answer"].strip()) for row in csv.DictReader(file)]


class RecordedBackend:
    """The handlers. `ttft_s` to the first token, then `tokens_per_second`; a word counts as one token."""

    def __init__(self, recordings: Recordings, *, ttft_s: float, tokens_per_second: float) -> None:
        self._recordings = recordings
        self._ttft_s = ttft_s
        self._tokens_per_second = tokens_per_second
        self.active = 0
        """Answers in progress."""

    def app(self) -> web.Application:
        """The web application."""
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        return app

    async def _models(self, _: web.Request) -> web.Response:
        models = [{"id": MODEL, "object": "model", "created": 0, "owned_by": "recording"}]
        return web.json_response({"object": "list", "data": models}, headers=HEADERS)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise _bad_request("'messages' must be a list with at least one message")
        pieces = re.findall(r"\s*\S+", self._recordings.answer(_prompt(messages)))
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or len(pieces)
        if not isinstance(limit, int) or limit < 1:
            raise _bad_request("'max_tokens' must be a whole number of at least 1")
        answer = _Answer(
            pieces=pieces[:limit],
            finish_reason="length" if limit < len(pieces) else "stop",
            prompt_tokens=sum(len(_text(message).split()) for message in messages),
        )
        self.active += 1
        try:
            if body.get("stream"):
                return await self._stream(request, answer, body)
            await asyncio.sleep(self._ttft_s + len(answer.pieces) / self._tokens_per_second)
            return web.json_response(answer.whole(), headers=HEADERS)
        finally:
            self.active -= 1

    async def _stream(self, request: web.Request, answer: _Answer, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={**HEADERS, "content-type": "text/event-stream"})
        await response.prepare(request)
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        async for payload in self._paced(answer):
            await response.write(b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n")
        if wants_usage:
            await response.write(b"data: " + json.dumps(answer.chunk([], usage=answer.usage())).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _paced(self, answer: _Answer) -> AsyncIterator[dict[str, Any]]:
        """Each chunk at its time, by the clock, so that small delays do not add up."""
        first_at = time.monotonic() + self._ttft_s
        for number, piece in enumerate(answer.pieces):
            await asyncio.sleep(first_at + number / self._tokens_per_second - time.monotonic())
            delta = {"content": piece} if number else {"role": "assistant", "content": piece}
            yield answer.chunk([{"index": 0, "delta": delta, "finish_reason": None}])
        yield answer.chunk([{"index": 0, "delta": {}, "finish_reason": answer.finish_reason}])


class _Answer:
    def __init__(self, *, pieces: list[str], finish_reason: str, prompt_tokens: int) -> None:
        self.pieces = pieces
        self.finish_reason = finish_reason
        self._prompt_tokens = prompt_tokens
        self._id = f"chatcmpl-recorded-{uuid.uuid4().hex[:12]}"
        self._created = int(time.time())

    def usage(self) -> dict[str, int]:
        output = len(self.pieces)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": output,
            "total_tokens": self._prompt_tokens + output,
        }

    def chunk(self, choices: list[dict[str, Any]], **more: object) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": choices, **more}

    def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self.pieces)}
        choices = [{"index": 0, "message": message, "finish_reason": self.finish_reason}]
        return {**self._head("chat.completion"), "choices": choices, "usage": self.usage()}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": MODEL}


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        raise _bad_request("the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise _bad_request("the body must be a JSON object")
    return body


def _bad_request(message: str) -> web.HTTPBadRequest:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.HTTPBadRequest(text=json.dumps({"error": error}), content_type="application/json", headers=HEADERS)


def _prompt(messages: list[Any]) -> str:
    asked = [message for message in messages if isinstance(message, dict) and message.get("role") == "user"]
    return _text(asked[-1]) if asked else ""


def _text(message: object) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _words(text: str) -> frozenset[str]:
    return frozenset(word.lower() for word in _WORD.findall(text))


async def _run(port: int, ttft_s: float, tokens_per_second: float) -> None:
    backend = RecordedBackend(Recordings(), ttft_s=ttft_s, tokens_per_second=tokens_per_second)
    # A client that goes away cancels its handler, which ends the sending.
    runner = web.AppRunner(backend.app(), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Parse the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(description="A backend that replays recorded answers.")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--ttft", type=float, default=0.8, help="seconds to the first token")
    parser.add_argument("--tokens-per-second", type=float, default=50.0)
    given = parser.parse_args()
    try:
        asyncio.run(_run(given.port, given.ttft, given.tokens_per_second))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
