"""A backend that counts what it would bill, by the tag in each prompt: the truth that a ledger is held against."""

import asyncio
import json
import random
from collections import Counter
from typing import Self

from aiohttp import web

PROMPT_TOKENS = 20


class CountingBackend:
    """OpenAI's chat API on a free port; answers of random length, never longer than `max_tokens` allows."""

    def __init__(self, seed: int, *, most_s: float = 0.1) -> None:
        """`most_s`: the longest that an answer takes which is not streamed."""
        self._most_s = most_s
        self.billed: Counter[str] = Counter()
        """Tokens by tag: prompt and completion, as they are generated."""
        self.cut: set[str] = set()
        """Tags whose answer was not read to its end."""
        self.unlimited: list[str] = []
        """Tags whose request named no most tokens: nothing would bound such an answer."""
        self.calls = 0
        self.open = 0
        """Requests that are being answered."""
        self._rng = random.Random(seed)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        tag = body["messages"][-1]["content"].split()[0]
        most = body.get("max_tokens") or body.get("max_completion_tokens")
        if most is None:
            self.unlimited.append(tag)
            most = 200
        count = most if self._rng.random() < 0.3 else self._rng.randint(1, most)
        if body["model"] == "cheap-m" and self._rng.random() < 0.05:
            return web.json_response({"error": {"message": "busy", "type": "server_error"}}, status=503)
        self.calls += 1
        self.open += 1
        self.billed[tag] += PROMPT_TOKENS
        try:
            return await self._answer(request, body, tag, count)
        except (asyncio.CancelledError, ConnectionError):
            self.cut.add(tag)
            raise
        finally:
            self.open -= 1

    async def _answer(self, request: web.Request, body: dict, tag: str, count: int) -> web.StreamResponse:
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": count, "total_tokens": PROMPT_TOKENS + count}
        head = {"id": "c", "created": 1, "model": "m"}
        if not body.get("stream"):
            await asyncio.sleep(self._rng.random() * self._most_s)
            self.billed[tag] += count
            message = {"role": "assistant", "content": "token " * count}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response(head | {"object": "chat.completion", "choices": [choice], "usage": usage})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        chunk = head | {"object": "chat.completion.chunk"}
        for start in range(0, count, 10):
            made = min(10, count - start)
            self.billed[tag] += made
            choice = {"index": 0, "delta": {"content": "token " * made}, "finish_reason": None}
            await response.write(_event(chunk | {"choices": [choice]}))
            await asyncio.sleep(self._rng.random() * 0.03)
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        await response.write(_event(chunk | {"choices": [last]}))
        await response.write(_event(chunk | {"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        return response


def _event(payload: dict) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"
