"""A backend that gives the log-probabilities of prompts, in vLLM's way and in SGLang's; else it follows a script.

Shapes and refusals are those of vLLM's `/v1/chat/completions` (`prompt_logprobs`, `continue_final_message`) and of
SGLang's `/v1/tokenize` and `/generate` (`return_logprob`, `logprob_start_len`). A word, with the white space before it,
is a token; so is every punctuation mark.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from aiohttp import web

from tests.upstream.scripted import ScriptedUpstream

_TOKEN = re.compile(r"\s*(?:<\|\w+\|>|\w+|[^\w\s]|$)")


class ScoringUpstream(ScriptedUpstream):
    """`logprobs` are given to the tokens of a prompt, over and over, from the end."""

    def __init__(self, *, port: int = 0) -> None:
        super().__init__(port=port)
        self.logprobs: list[float] = [-0.1]
        self.scored: list[dict[str, Any]] = []
        """Bodies that asked for log-probabilities."""
        self.cached_tokens = 0
        self.spoil: Any = None
        """Answered instead of a score."""
        self.reads_s = 0.0
        """What reading takes."""
        self.reading = asyncio.Event()
        """Set when something is being read."""
        self._vocabulary: dict[str, int] = {}

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/tokenize", self._tokenize)
        app.router.add_post("/generate", self._generate)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if request.path == "/v1/chat/completions" and body.get("prompt_logprobs") is not None:
            self.reading.set()
            await asyncio.sleep(self.reads_s)
            return self._vllm(body)
        return await super()._serve(request)

    def _tokens(self, text: str) -> list[str]:
        return [found for found in _TOKEN.findall(text) if found]

    def _ids(self, text: str) -> list[int]:
        return [self._vocabulary.setdefault(token, len(self._vocabulary) + 100) for token in self._tokens(text)]

    def _values(self, count: int) -> list[float]:
        """For so many tokens at the end of a prompt."""
        return [self.logprobs[place % len(self.logprobs)] for place in range(count)][::-1]

    # --- vLLM -------------------------------------------------------------------------------------------------

    def _vllm(self, body: dict[str, Any]) -> web.Response:
        self.scored.append(body)
        if self.spoil is not None:
            return web.json_response(self.spoil)
        if body.get("stream"):
            return _refused("`prompt_logprobs` are not available when `stream=True`.")
        if body.get("continue_final_message") and body.get("add_generation_prompt", True):
            return _refused("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
        turns = [f"<|im_start|>{turn['role']}\n{turn['content']}" for turn in body["messages"]]
        prompt = "<|im_end|>\n".join(turns)
        prompt += "" if body.get("continue_final_message") else "<|im_end|>\n<|im_start|>assistant\n"
        tokens, ids = self._tokens(prompt), self._ids(prompt)
        entries: list[Any] = [
            {str(number): {"logprob": value, "rank": 1, "decoded_token": token}}
            for number, value, token in zip(ids, self._values(len(ids)), tokens, strict=True)
        ]
        message = {"role": "assistant", "content": ".", "reasoning_content": None, "tool_calls": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length", "stop_reason": None}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1, "total_tokens": len(ids) + 1}
        answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
        return web.json_response(
            {**answer, "choices": [choice], "usage": usage, "prompt_logprobs": [None, *entries[1:]]}
        )

    # --- SGLang -----------------------------------------------------------------------------------------------

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        prompt = body["prompt"]
        if not isinstance(prompt, list):
            return web.json_response({"tokens": self._ids(prompt), "count": 1, "max_model_len": 4096})
        tokens = [self._ids(text) for text in prompt]
        return web.json_response({"tokens": tokens, "count": [len(ids) for ids in tokens], "max_model_len": 4096})

    async def _generate(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.scored.append(body)
        if self.spoil is not None:
            return web.json_response(self.spoil)
        ids, start = body["input_ids"], body["logprob_start_len"]
        if not body.get("return_logprob") or start >= len(ids):
            return web.json_response({"error": {"message": "logprob_start_len is too large"}}, status=400)
        rest = ids[start + 1 :]
        entries = [
            [None, ids[start], None],
            *([value, number, None] for value, number in zip(self._values(len(rest)), rest, strict=True)),
        ]
        meta = {"id": "1", "finish_reason": {"type": "length", "length": 0}, "prompt_tokens": len(ids)}
        meta |= {"completion_tokens": 0, "cached_tokens": self.cached_tokens, "e2e_latency": 0.01}
        return web.json_response(
            {"text": "", "meta_info": {**meta, "input_token_logprobs": entries, "output_token_logprobs": []}}
        )


def _refused(message: str) -> web.Response:
    error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
    return web.json_response({"error": error}, status=400)
