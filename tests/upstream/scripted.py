"""A backend that follows a script: a real HTTP server with OpenAI's chat API, for tests.

What happens to a request is told by, in this order: a JSON object `{"script": {…}}` as the last user message, the next
script in `queue`, the script for its model in `by_model`, `default`. By hand:

    python -m tests.upstream.scripted --port 9000
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gzip
import json
import re
import struct
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec
from aiohttp import web
from multidict import CIMultiDictProxy

from tests.upstream.script import Script

_CREATED = 1_700_000_000


@dataclass
class Received:
    """One request as it came. `at` is in the monotonic clock's seconds."""

    path: str
    headers: CIMultiDictProxy[str]
    body: bytes
    at: float
    json: dict[str, Any] = field(default_factory=dict)


class ScriptedUpstream:
    """The server, on a free port of the loopback while the context is open."""

    def __init__(self, *, port: int = 0) -> None:
        self.default = Script()
        self.by_model: dict[str, Script] = {}
        self.queue: deque[Script] = deque()
        self.requests: list[Received] = []
        self.health_status = 200
        self.checks = 0
        """Requests for `/health`."""
        self.open = 0
        """Requests in progress."""
        self.disconnects: list[float] = []
        """When clients left in mid-answer, in the monotonic clock's seconds."""
        self.chunks_sent = 0
        self.peers: set[tuple[str, int]] = set()
        """The connections that requests came on."""
        self._port = port
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._serve)
        app.router.add_post("/v1/completions", self._serve)
        app.router.add_post("/v1/embeddings", self._serve)
        app.router.add_post("/v1/messages", self._serve)
        app.router.add_get("/v1/models", self._models)
        self.add_routes(app)
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    def add_routes(self, app: web.Application) -> None:
        """More URLs, for servers that have some of their own."""

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def drop_idle_connections(self) -> None:
        """End all connections, as a restart does, and listen on."""
        assert self._runner is not None
        assert self._runner.server is not None
        for connection in list(self._runner.server.connections):
            connection.force_close()
            if connection.transport is not None:
                connection.transport.abort()

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        assert self._runner is not None
        assert self._runner.server is not None
        return len(self._runner.server.connections)

    async def _health(self, request: web.Request) -> web.Response:
        self.checks += 1
        return web.Response(status=self.health_status)

    async def _models(self, request: web.Request) -> web.Response:
        self.requests.append(Received(request.path, request.headers, b"", time.monotonic()))
        return web.json_response({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        received = Received(request.path, request.headers, body, time.monotonic(), json.loads(body))
        self.requests.append(received)
        self.peers.add(request.transport.get_extra_info("peername"))
        self.open += 1
        try:
            kind = _KINDS[request.path]
            return await kind(self, request, received.json, self._script(received.json)).run()
        except (asyncio.CancelledError, ConnectionError):
            self.disconnects.append(time.monotonic())
            raise
        finally:
            self.open -= 1

    def _script(self, body: dict[str, Any]) -> Script:
        last = next((m for m in reversed(body.get("messages", [])) if m.get("role") == "user"), {})
        content = last.get("content")
        if isinstance(content, str) and content.lstrip().startswith('{"script"'):
            return msgspec.convert(json.loads(content)["script"], Script)
        if self.queue:
            return self.queue.popleft()
        return self.by_model.get(body.get("model", ""), self.default)


class _Performance:
    """One request played by its script."""

    def __init__(self, upstream: ScriptedUpstream, request: web.Request, body: dict[str, Any], script: Script):
        self._upstream = upstream
        self._request = request
        self._body = body
        self._script = script
        self._id = f"chatcmpl-scripted-{len(upstream.requests)}"
        self._sent = 0
        self._response = web.StreamResponse(status=script.status, headers=script.headers)

    async def run(self) -> web.StreamResponse:
        script = self._script
        if script.cut in ("before_head", "in_head"):
            return self._cut_head()
        if script.stall_after == -1:
            await asyncio.sleep(3600)
        await asyncio.sleep(script.head_after_s)
        if script.refuses_usage_option and "stream_options" in self._body:
            return self._refuse_option("stream_options")
        # OpenAI takes no prediction beside `max_completion_tokens`.
        if "prediction" in self._body and (script.refuses_prediction or "max_completion_tokens" in self._body):
            return self._refuse_option("prediction")
        stream = bool(self._body.get("stream"))
        if script.body is not None or script.status >= 300 or not stream:
            return await self._whole()
        return await self._stream()

    # --- the connection ---------------------------------------------------------------------------------------

    def _end_connection(self) -> web.StreamResponse:
        transport = self._request.transport
        if transport is not None:
            transport.abort() if self._script.reset else transport.close()
        return self._response

    def _cut_head(self) -> web.StreamResponse:
        transport = self._request.transport
        if self._script.cut == "in_head" and transport is not None:
            transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/ev")
        return self._end_connection()

    def _refuse_option(self, field: str) -> web.Response:
        error = {"message": f"Unknown field: {field}", "type": "invalid_request_error", "param": field}
        return web.json_response({"error": {**error, "code": None}}, status=400)

    # --- a whole answer ---------------------------------------------------------------------------------------

    async def _whole(self) -> web.StreamResponse:
        script = self._script
        await asyncio.sleep(script.think_s)
        body, kind = script.body, script.content_type or "application/json"
        if body is None and script.status >= 400:
            error = {"message": f"scripted {script.status}", "type": "scripted", "param": None, "code": "scripted"}
            body = json.dumps({"error": error}).encode()
        elif body is None:
            body = json.dumps(self._answer()).encode()
        body = self._encoded(body)
        response = self._response
        response.content_type = kind
        response.content_length = len(body)
        await response.prepare(self._request)
        if script.cut == "after_head":
            return self._end_connection()
        if script.cut_after is not None:
            await response.write(body[: script.cut_after])
            return self._end_connection()
        await response.write(body)
        await response.write_eof()
        return response

    def _encoded(self, body: bytes) -> bytes:
        if not self._script.coding:
            return body
        self._response.headers["content-encoding"] = self._script.coding
        return gzip.compress(body) if self._script.coding == "gzip" else body

    def _answer(self) -> dict[str, Any]:
        script = self._script
        message: dict[str, Any] = {"role": "assistant", "content": script.text}
        if script.tool_calls:
            message |= {"content": None, "tool_calls": script.tool_calls}
        choices = [
            {"index": index, "message": message, "finish_reason": script.finish_reason}
            for index in range(self._body.get("n") or 1)
        ]
        answer = {**self._head("chat.completion"), "choices": choices, **script.extra}
        return answer if script.usage == "none" else {**answer, "usage": self._usage()}

    # --- a stream ---------------------------------------------------------------------------------------------

    async def _stream(self) -> web.StreamResponse:
        script, response = self._script, self._response
        response.content_type = script.content_type or "text/event-stream"
        if script.coding:
            response.headers["content-encoding"] = script.coding
        await response.prepare(self._request)
        if script.cut == "after_head":
            return self._end_connection()
        compress = gzip.compress if script.coding == "gzip" else None
        writes = self._raw() if script.raw else self._events()
        async for data in writes:
            await self._write(compress(data) if compress else data)
        if script.cut_after is not None and not script.raw:
            return self._end_connection()
        await response.write_eof()
        return response

    async def _write(self, data: bytes) -> None:
        step = self._script.fragment or len(data)
        for start in range(0, len(data), step):
            await self._response.write(data[start : start + step])
            if step < len(data):
                await asyncio.sleep(0)

    async def _raw(self) -> AsyncIterator[bytes]:
        for index, data in enumerate(self._script.raw):
            await asyncio.sleep(self._script.delay_s if index else self._script.think_s)
            yield data

    async def _events(self) -> AsyncIterator[bytes]:
        script = self._script
        for payload in script.first_events:
            yield self._framed(payload)
        await asyncio.sleep(script.think_s)
        choices = range(self._body.get("n") or 1)
        for index in choices:
            yield self._chunk({"role": "assistant", "content": ""}, index=index)
        pieces = re.findall(r"\s*\S+", script.text) or [""]
        count = script.chunks if script.chunks is not None else len(pieces)
        for number in range(count):
            if script.stall_after == number:
                await asyncio.sleep(3600)
            if script.cut_after == number:
                return
            if number:
                await asyncio.sleep(script.delay_s)
            for index in choices:
                yield self._chunk({"content": pieces[number % len(pieces)]}, index=index)
            self._sent += 1
            self._upstream.chunks_sent += 1
        async for data in self._ending(choices):
            yield data

    async def _ending(self, choices: range) -> AsyncIterator[bytes]:
        script = self._script
        if script.error_event is not None:
            name = f"event: {script.error_name}{script.line_end}".encode() if script.error_name else b""
            yield name + self._framed(json.dumps(script.error_event).encode())
            return
        if script.tool_calls:
            calls = [{"index": index, **call} for index, call in enumerate(script.tool_calls)]
            yield self._chunk({"tool_calls": calls})
        if script.finish_reason is not None:
            for index in choices:
                more = {"usage": self._usage()} if script.usage == "finish" else {}
                yield self._chunk({}, index=index, finish_reason=script.finish_reason, **more)
        asked = (self._body.get("stream_options") or {}).get("include_usage")
        if script.usage == "chunk" and asked:
            usage = {**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage(), **script.extra}
            yield self._framed(json.dumps(usage, ensure_ascii=False).encode())
        if script.done:
            yield self._framed(b"[DONE]")

    def _chunk(
        self, delta: dict[str, Any], *, index: int = 0, finish_reason: str | None = None, **more: object
    ) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice], **self._script.extra, **more}
        if self._script.usage == "every":
            chunk["usage"] = self._usage()
        return self._framed(json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode())

    def _framed(self, payload: bytes) -> bytes:
        end = self._script.line_end.encode()
        if self._script.multiline and payload.startswith(b"{"):
            lines = json.dumps(json.loads(payload), indent=1, ensure_ascii=False).encode().split(b"\n")
        else:
            lines = [payload]
        data = b"".join(b"data: " + line + end for line in lines) + end
        return b": a comment" + end + end + data if self._script.comments else data

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": _CREATED, "model": self._body.get("model", "")}

    def _usage(self) -> dict[str, Any]:
        words = re.findall(r"\S+", self._script.text)
        output = self._sent or len(words)
        usage = {"prompt_tokens": 11, "completion_tokens": output, "total_tokens": 11 + output}
        if self._body.get("prediction"):
            # As OpenAI bills it: what of the prediction is not in the answer is output as well.
            predicted = self._body["prediction"]["content"].split()
            rejected = len([word for word in predicted if word not in words])
            usage["completion_tokens"] += rejected
            usage["total_tokens"] += rejected
            details = {"rejected_prediction_tokens": rejected, "accepted_prediction_tokens": len(predicted) - rejected}
            return {**usage, "completion_tokens_details": details}
        return usage


class _Completion(_Performance):
    """A legacy completion: the same, with texts in place of messages."""

    def _answer(self) -> dict[str, Any]:
        answer = super()._answer()
        choices = [
            {"index": index, "text": self._script.text, "logprobs": None, "finish_reason": self._script.finish_reason}
            for index in range(len(answer["choices"]))
        ]
        return {**answer, "object": "text_completion", "choices": choices}

    def _chunk(
        self, delta: dict[str, Any], *, index: int = 0, finish_reason: str | None = None, **more: object
    ) -> bytes:
        choice = {"index": index, "text": delta.get("content") or "", "finish_reason": finish_reason}
        chunk = {**self._head("text_completion"), "choices": [choice], **self._script.extra, **more}
        return self._framed(json.dumps(chunk).encode())


class _Embeddings(_Performance):
    """One vector for each text, always the same, as numbers or in base64."""

    def _answer(self) -> dict[str, Any]:
        given = self._body["input"]
        vector: Any = [0.25, -0.5, 1.0]
        if self._body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
        data = [
            {"object": "embedding", "index": index, "embedding": vector}
            for index in range(1 if isinstance(given, str) else len(given))
        ]
        usage = {"prompt_tokens": 11, "total_tokens": 11}
        return {"object": "list", "data": data, "model": self._body["model"], "usage": usage, **self._script.extra}


class _Message(_Performance):
    """Anthropic's Messages: thinking from `extra`, then the text, then the calls."""

    def _blocks(self) -> list[dict[str, Any]]:
        script = self._script
        blocks = list(script.extra.get("blocks", []))
        if script.text:
            blocks.append({"type": "text", "text": script.text})
        for call in script.tool_calls or ():
            given = json.loads(call["function"]["arguments"])
            blocks.append({"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": given})
        return blocks

    def _message(self, blocks: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
        usage = {"input_tokens": 7, "cache_read_input_tokens": 4, "output_tokens": 0 if reason is None else 5}
        head = {"id": "msg_theirs", "type": "message", "role": "assistant", "model": self._body["model"]}
        extra = {key: value for key, value in self._script.extra.items() if key != "blocks"}
        return {**head, "content": blocks, "stop_reason": reason, "stop_sequence": None, "usage": usage, **extra}

    def _answer(self) -> dict[str, Any]:
        return self._message(self._blocks(), self._script.finish_reason)

    async def _events(self) -> AsyncIterator[bytes]:
        script = self._script
        yield self._event("message_start", message=self._message([], None))
        yield self._event("ping")
        await asyncio.sleep(script.think_s)
        for index, block in enumerate(self._blocks()):
            empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
            yield self._event("content_block_start", index=index, content_block={**block, **empty[block["type"]]})
            for number, delta in enumerate(_message_deltas(block)):
                if script.cut_after == number:
                    return
                yield self._event("content_block_delta", index=index, delta=delta)
                await asyncio.sleep(script.delay_s)
            yield self._event("content_block_stop", index=index)
        if script.error_event is not None:
            yield self._event("error", error=script.error_event)
            return
        ending = {"stop_reason": script.finish_reason, "stop_sequence": None}
        yield self._event("message_delta", delta=ending, usage={"output_tokens": 5})
        yield self._event("message_stop")

    def _event(self, kind: str, **members: object) -> bytes:
        data = json.dumps({"type": kind, **members}, ensure_ascii=False)
        return f"event: {kind}\ndata: {data}\n\n".encode()


def _message_deltas(block: dict[str, Any]) -> list[dict[str, Any]]:
    if block["type"] == "text":
        return [{"type": "text_delta", "text": piece} for piece in re.findall(r"\s*\S+", block["text"])]
    if block["type"] == "thinking":
        thought = {"type": "thinking_delta", "thinking": block["thinking"]}
        return [thought, {"type": "signature_delta", "signature": block["signature"]}]
    whole = json.dumps(block["input"])
    return [{"type": "input_json_delta", "partial_json": piece} for piece in ("", whole[:3], whole[3:])]


_KINDS: dict[str, type[_Performance]] = {
    "/v1/chat/completions": _Performance,
    "/v1/completions": _Completion,
    "/v1/embeddings": _Embeddings,
    "/v1/messages": _Message,
}


async def _run(port: int) -> None:
    async with ScriptedUpstream(port=port) as upstream:
        print(upstream.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A backend that follows a script.")
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_run(parser.parse_args().port))
