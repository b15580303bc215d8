"""A streamed answer as a whole one, and a whole one as a stream, where nothing is lost on the way.

Both give None where the other form would not say exactly the same: an unknown member that holds something, parts of
content, audio, members that change from chunk to chunk. What is left out on purpose: the padding that OpenAI adds to
chunks (`obfuscation`), and members that are null or empty, which mean "nothing" in both forms. The deltas of a stream
made of a whole answer are fewer than a model's: role, reasoning, text, one for each call, the end.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import BackendError
from gateway.inference.events import Event, Relayed, UsageReported, WholeAnswer
from gateway.wire.openai_chat_answer import decode_answer, read_usage
from gateway.wire.sse import frame

_ENCODER = msgspec.json.Encoder()
_SAME_IN_ALL = ("id", "model", "system_fingerprint", "service_tier")
_PADDING = frozenset({"obfuscation"})
_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_HEAD = frozenset({"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"})
_CHOICE = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})
_MESSAGE = frozenset({"role", "tool_calls", "function_call", *_TEXTS})
_CALL = frozenset({"index", "id", "type", "function"})
_FUNCTION = frozenset({"name", "arguments"})
_LOGPROBS = frozenset({"content", "refusal"})


_UNFIT = (BackendError, msgspec.MsgspecError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What a body of another shape than expected ends in: it then has one form only."""


class _Inexact(Exception):
    """The other form could not say the same."""


def whole_of(data: bytes, usage: UsageReported | None) -> WholeAnswer | None:
    """The answer that was streamed as `data` (whole `data: …` events), as one body; None: it cannot be one."""
    try:
        chunks = [msgspec.json.decode(payload) for payload in data[6:-2].split(b"\n\ndata: ")]
        body = _whole(chunks, usage)
        return decode_answer(_ENCODER.encode(body), deployment="")
    except (_Inexact, *_UNFIT):
        return None


def stream_of(answer: WholeAnswer) -> list[Event] | None:
    """The events of a stream that gives the same answer; None: no stream can."""
    try:
        return _stream(answer, msgspec.json.decode(answer.body))
    except (_Inexact, *_UNFIT):
        return None


# --- a stream to a whole --------------------------------------------------------------------------------------


def _whole(chunks: list[dict[str, Any]], usage: UsageReported | None) -> dict[str, Any]:
    head: dict[str, Any] = {"object": "chat.completion", "created": chunks[0].get("created", 0)}
    choices: dict[int, _Choice] = {}
    used: object = None
    for chunk in chunks:
        _refuse_unknown(chunk, _HEAD | _PADDING)
        for name in _SAME_IN_ALL:
            value = chunk.get(name)
            if value is not None and head.setdefault(name, value) != value:
                raise _Inexact
        used = chunk.get("usage") or used
        for choice in chunk["choices"]:
            choices.setdefault(choice.get("index", 0), _Choice()).add(choice)
    if usage is not None and usage.data:
        used = msgspec.json.decode(usage.data.removeprefix(b"data: "))["usage"]
    if used is None:
        raise _Inexact  # a whole answer says what it used
    order = ("id", "object", "created", "model", "choices", *_SAME_IN_ALL[2:], "usage")
    parts = {**head, "choices": [choices[index].whole(index) for index in sorted(choices)], "usage": used}
    return {name: parts[name] for name in order if name in parts}


class _Choice:
    """One choice, put together from its deltas."""

    def __init__(self) -> None:
        self._role = "assistant"
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._function: dict[str, Any] = {}
        self._logprobs: dict[str, list[Any]] = {}
        self._finish_reason: str | None = None
        self._more: dict[str, Any] = {}

    def add(self, choice: dict[str, Any]) -> None:
        _refuse_unknown(choice, _CHOICE, scalars=choice.get("finish_reason") is not None)
        self._more |= {name: value for name, value in choice.items() if name not in _CHOICE and value is not None}
        delta = choice.get("delta") or {}
        _refuse_unknown(delta, _MESSAGE)
        self._role = delta.get("role") or self._role
        for name in _TEXTS:
            if (text := delta.get(name)) is not None:
                self._texts.setdefault(name, []).append(_text(text))
        for call in delta.get("tool_calls") or ():
            self._add_call(call)
        if function := delta.get("function_call"):
            _add_function(self._function, function)
        if logprobs := choice.get("logprobs"):
            _refuse_unknown(logprobs, _LOGPROBS)
            for name, values in logprobs.items():
                if values is not None:
                    self._logprobs.setdefault(name, []).extend(values)
        if (reason := choice.get("finish_reason")) is not None:
            if self._finish_reason not in (None, reason):
                raise _Inexact
            self._finish_reason = reason

    def _add_call(self, piece: dict[str, Any]) -> None:
        _refuse_unknown(piece, _CALL)
        call = self._calls.setdefault(piece["index"], {})
        for name in ("id", "type"):
            if (value := piece.get(name)) and call.setdefault(name, value) != value:
                raise _Inexact
        _add_function(call.setdefault("function", {}), piece.get("function") or {})

    def whole(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": self._role, "content": None, "refusal": None}
        message |= {name: "".join(pieces) for name, pieces in self._texts.items()}
        if self._calls:
            if any(call.keys() != {"id", "type", "function"} for call in self._calls.values()):
                raise _Inexact
            message["tool_calls"] = [self._calls[position] for position in sorted(self._calls)]
            message["content"] = message["content"] or None
        if self._function:
            message["function_call"] = self._function
        logprobs = {"content": None, "refusal": None, **self._logprobs} if self._logprobs else None
        if self._finish_reason is None:
            raise _Inexact
        choice = {"index": index, "message": message, "logprobs": logprobs, "finish_reason": self._finish_reason}
        return choice | self._more


def _add_function(function: dict[str, Any], piece: dict[str, Any]) -> None:
    _refuse_unknown(piece, _FUNCTION)
    if (name := piece.get("name")) and function.setdefault("name", name) != name:
        raise _Inexact
    function["arguments"] = function.get("arguments", "") + _text(piece.get("arguments") or "")


# --- a whole to a stream --------------------------------------------------------------------------------------


def _stream(answer: WholeAnswer, body: dict[str, Any]) -> list[Event]:
    _refuse_unknown(body, _HEAD)
    head = {name: body[name] for name in ("id", "created", "model", *_SAME_IN_ALL[2:]) if body.get(name) is not None}
    head["object"] = "chat.completion.chunk"
    pieces: list[bytes] = []
    size = 0
    for choice in body["choices"]:
        for delta, rest in _deltas(choice):
            part = {"index": choice.get("index", 0), "delta": delta, "logprobs": None, "finish_reason": None, **rest}
            pieces.append(frame(_ENCODER.encode({**head, "choices": [part]})))
            size += len(_ENCODER.encode(delta))
    relayed = Relayed(
        data=b"".join(pieces),
        text=answer.text,
        content=True,
        content_bytes=size,
        finish_reason=answer.finish_reason,
    )
    used = body.get("usage")
    if used is None:
        return [relayed]
    usage = read_usage(used)
    if usage is None:
        raise _Inexact
    return [relayed, UsageReported(usage, frame(_ENCODER.encode({**head, "choices": [], "usage": used})))]


def _deltas(choice: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The deltas of one choice, each with what else stands beside it."""
    _refuse_unknown(choice, _CHOICE, scalars=True)
    message = choice["message"]
    _refuse_unknown(message, _MESSAGE)
    logprobs = choice.get("logprobs") or None
    if logprobs is not None:
        _refuse_unknown(logprobs, _LOGPROBS)
    has_calls = bool(message.get("tool_calls") or message.get("function_call"))
    first = {"role": message.get("role") or "assistant", "content": None if has_calls else "", "refusal": None}
    found: list[tuple[dict[str, Any], dict[str, Any]]] = [(first, {})]
    # Reasoning goes before the text.
    found += [({name: _text(message[name])}, {}) for name in reversed(_TEXTS) if message.get(name)]
    if logprobs is not None:
        found[-1] = (found[-1][0], {"logprobs": logprobs})
    for index, call in enumerate(message.get("tool_calls") or ()):
        _refuse_unknown(call, _CALL)
        _refuse_unknown(call["function"], _FUNCTION)
        found.append(({"tool_calls": [{"index": index, **call}]}, {}))
    if message.get("function_call"):
        found.append(({"function_call": message["function_call"]}, {}))
    more = {name: value for name, value in choice.items() if name not in _CHOICE and value is not None}
    found.append(({}, {"finish_reason": choice["finish_reason"], **more}))
    return found


def _refuse_unknown(members: dict[str, Any], known: frozenset[str], *, scalars: bool = False) -> None:
    """`scalars`: unknown texts and numbers may stay, as they can be carried over."""
    for name, value in members.items():
        if name in known or value is None or value in ([], {}):
            continue
        if not (scalars and isinstance(value, str | int | float)):
            raise _Inexact


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Inexact
    return value
