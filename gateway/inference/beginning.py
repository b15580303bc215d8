"""How a prompt begins: what requests of one conversation, and of one kind, have in common."""

from __future__ import annotations

import zlib
from itertools import islice

from gateway.inference.request import InferenceRequest

_CHARACTERS = 2_000
"""Of each message: instructions that many requests share begin with less."""
_MOST_MESSAGES = 4


def beginning_of(request: InferenceRequest) -> int:
    """A hash of the messages up to the user's first, which stays the same while a conversation grows; never 0."""
    named = request.metadata.get("conversation")
    beginning = [named] if named else []
    for message in () if named else islice(request.messages, _MOST_MESSAGES):
        beginning.append(message.text[:_CHARACTERS])
        if message.role == "user":
            break
    return zlib.crc32("\0".join(beginning).encode("utf-8", "surrogatepass")) or 1
