"""A request without the fields that a deployment is never sent, because policy says so (`drop` on the deployment)."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.inference.request import InferenceRequest, Sampling
from gateway.wire.openai_chat_request import LENGTH_FIELDS

KEPT = LENGTH_FIELDS | {
    *("model", "messages", "input", "prompt", "suffix", "system", "instructions", "previous_response_id"),
    *("stream", "stream_options", "n", "best_of", "draft", "metadata"),
    *("tools", "tool_choice", "functions", "function_call", "response_format", "text", "output_config"),
}
"""Fields without which it would be another question, another kind of answer, or another price: never dropped."""

_NOTHING = (b"null", b"false", b"{}", b"[]")
_SAMPLED = frozenset(Sampling.__struct_fields__)
_SAID = {"reasoning_effort": "effort", "verbosity": "verbosity", "user": "user"}
"""Chat's name of a field -> where the canonical conversation has it, on every surface."""


def without(request: InferenceRequest, names: frozenset[str]) -> tuple[InferenceRequest, tuple[str, ...]]:
    """The request without the fields in `names`, and which of them it had, in order of their names.

    A name is a field of the client's body, or chat's name for what the client's schema has elsewhere
    (`reasoning_effort` for `reasoning.effort`). What is named and not there changes nothing.
    """
    had = tuple(sorted(name for name in names if _has(request, name)))
    if not had:
        return request, ()
    changed: dict[str, Any] = {
        "fields": {name: raw for name, raw in request.fields.items() if name not in names},
        "native_only": tuple(path for path in request.native_only if _root(path) not in names),
    }
    if sampled := _SAMPLED.intersection(had):
        nothing = {name: () if name == "stop" else None for name in sampled}
        changed["sampling"] = msgspec.structs.replace(request.sampling, **nothing)
    if request.conversation is not None:
        said = {_SAID[name]: None for name in had if name in _SAID}
        changed["conversation"] = msgspec.structs.replace(request.conversation, **said)
    if "logprobs" in had:
        changed["logprobs"] = False
    return msgspec.structs.replace(request, **changed), had


def _has(request: InferenceRequest, name: str) -> bool:
    given = request.fields.get(name)
    if given is not None and bytes(given) not in _NOTHING:
        return True
    if name in _SAMPLED and getattr(request.sampling, name) not in (None, ()):
        return True
    if request.conversation is not None and name in _SAID and getattr(request.conversation, _SAID[name]) is not None:
        return True
    return any(_root(path) == name for path in request.native_only)


def _root(path: str) -> str:
    """The field of the body that a path begins with."""
    return path.partition(".")[0].partition("[")[0]
