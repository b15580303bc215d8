"""The response object: what a client asked for, said back, and the output's items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.inference.conversation import Reasoning, Refusal, Text, ToolCall
from gateway.inference.events import Finished
from gateway.inference.request import InferenceRequest
from gateway.inference.usage import Usage
from gateway.wire.collected import Block
from gateway.wire.openai_responses_request import is_background

_ECHOED: dict[str, object] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""Fields of the request that a response says back, with what holds where the client gave none."""
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseObject:
    """Makes the object of one response in each of its states."""

    def __init__(self, *, request: InferenceRequest, response_id: str, created: int, model: str) -> None:
        self.response_id = response_id
        self.kept = False
        """It can be asked for again, and gone on from."""
        self._created = created
        self._model = model
        self._background = is_background(request)
        self._echo = {
            name: default if (given := request.fields.get(name)) is None or bytes(given) == b"null" else given
            for name, default in _ECHOED.items()
        }

    def item_id(self, kind: str, index: int) -> str:
        """The id of the output's item at `index`; `kind` is `msg`, `fc` or `rs`."""
        return f"{kind}_{self.response_id.removeprefix('resp_')}{index}"

    def waiting(self, status: str, error: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Without an output: `queued`, `cancelled`, or `failed` with the error that ended it."""
        told = None if error is None else {name: error.get(name) for name in ("code", "message")}
        return self._object(status, [], None, None) | {"error": told}

    def begun(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """While the output grows: what is there of it so far."""
        return self._object("in_progress", items, None, None)

    def finished(self, items: list[dict[str, Any]], finished: Finished, usage: Usage | None) -> dict[str, Any]:
        """With all of the output: `completed`, or `incomplete` with the reason."""
        reason = _INCOMPLETE.get(finished.reason)
        status = "completed" if reason is None else "incomplete"
        return self._object(status, items, None if reason is None else {"reason": reason}, usage)

    def _object(
        self, status: str, items: list[dict[str, Any]], incomplete: dict[str, Any] | None, usage: Usage | None
    ) -> dict[str, Any]:
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": self._background,
            "error": None,
            "incomplete_details": incomplete,
            "model": self._model,
            "output": items,
            "store": self.kept,
            **self._echo,
            "usage": None if usage is None else _usage(usage),
        }


def items_of(blocks: list[Block], head: ResponseObject, status: str = "completed") -> list[dict[str, Any]]:
    """The output's items: texts and refusals next to each other are parts of one message."""
    items: list[dict[str, Any]] = []
    for block in blocks:
        match block:
            case Text() | Refusal():
                if not items or items[-1]["type"] != "message":
                    items.append(message_item(head.item_id("msg", len(items)), status))
                items[-1]["content"].append(part_of(block))
            case Reasoning():
                items.append(reasoning_item(head.item_id("rs", len(items)), [part_of(block)]))
            case ToolCall():
                items.append(call_item(head.item_id("fc", len(items)), block, status))
    return items


def message_item(item_id: str, status: str) -> dict[str, Any]:
    """A message, without its parts."""
    return {"type": "message", "id": item_id, "status": status, "role": "assistant", "content": []}


def reasoning_item(item_id: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    """A thought."""
    return {"type": "reasoning", "id": item_id, "summary": [], "content": content}


def call_item(item_id: str, call: ToolCall, status: str) -> dict[str, Any]:
    """A call of a function."""
    return {
        "type": "function_call",
        "id": item_id,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def part_of(block: Text | Refusal | Reasoning) -> dict[str, Any]:
    """A part of an item."""
    match block:
        case Text():
            return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}
        case Refusal():
            return {"type": "refusal", "refusal": block.text}
        case Reasoning():
            return {"type": "reasoning_text", "text": block.text}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def encode_deleted(response_id: str) -> bytes:
    """The answer to a deletion."""
    return msgspec.json.encode({"id": response_id, "object": "response", "deleted": True})
