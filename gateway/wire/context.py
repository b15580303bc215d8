"""Passages in a prompt: one system message after those that the client sent, in the schema of the request.

After the client's own system messages, because many chat templates take no other role before; before the conversation,
because they take none within it. The passages stand in the order of their documents, not of their scores, so that
prompts with the same passages begin with the same bytes, which a backend's prefix cache has then read already.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.inference.conversation import Text, Turn
from gateway.inference.request import InferenceRequest, Message
from gateway.wire.fields import text_size

_ENCODER = msgspec.json.Encoder()
_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_FIRST_ROLES = frozenset({"system", "developer"})
_SAYS = "Use these passages where they help to answer. The source of each stands before it in brackets."


def context_text(passages: Sequence[tuple[str, str]]) -> str:
    """The system message for passages, each with its source before its text."""
    return "\n\n".join((_SAYS, *(f"[{source}]\n{text}" for source, text in passages)))


def takes_context(request: InferenceRequest) -> bool:
    """Whether passages can be put into the prompt: a text to be completed has no place for them."""
    return request.surface in ("chat", "messages", "responses") and bool(request.messages)


def question_of(request: InferenceRequest) -> str:
    """What to search for: the user's last words; empty when there are none."""
    return next((message.text for message in reversed(request.messages) if message.role == "user"), "")


def with_context(request: InferenceRequest, text: str, sources: tuple[str, ...]) -> InferenceRequest:
    """The request with one more system message, for every backend alike. `sources` are named in the answer."""
    fields = dict(request.fields)
    place = sum(1 for _ in _leading(request))
    match request.surface:
        case "chat":
            messages = _RAW_LIST.decode(fields["messages"])
            messages.insert(place, msgspec.Raw(_ENCODER.encode({"role": "system", "content": text})))
            fields["messages"] = msgspec.Raw(_ENCODER.encode(messages))
        case "messages":
            fields["system"] = _joined(fields.get("system"), text)
        case _:
            fields["instructions"] = _joined(fields.get("instructions"), text)
    conversation = request.conversation
    if conversation is not None:
        first = sum(1 for turn in conversation.turns if turn.role in _FIRST_ROLES)
        turns = (*conversation.turns[:first], Turn("system", (Text(text),)), *conversation.turns[first:])
        conversation = msgspec.structs.replace(conversation, turns=turns)
    return msgspec.structs.replace(
        request,
        fields=fields,
        messages=(*request.messages[:place], Message("system", text), *request.messages[place:]),
        prompt_bytes=request.prompt_bytes + text_size(text) + len("system"),
        conversation=conversation,
        sources=sources,
    )


def _leading(request: InferenceRequest) -> Sequence[Message]:
    for position, message in enumerate(request.messages):
        if message.role not in _FIRST_ROLES:
            return request.messages[:position]
    return request.messages


def _joined(field: msgspec.Raw | None, text: str) -> msgspec.Raw:
    """A system prompt that is a text, or a list of blocks, with one more piece at its end."""
    value = None if field is None else msgspec.json.decode(field)
    if isinstance(value, list):
        return msgspec.Raw(_ENCODER.encode([*value, {"type": "text", "text": text}]))
    return msgspec.Raw(_ENCODER.encode(f"{value}\n\n{text}" if value else text))
