"""A response that goes on from an earlier one, and is kept so that a later one can go on from it."""

from __future__ import annotations

import msgspec

from gateway.conversations.kept import Conversations, KeptResponse
from gateway.errors import InvalidRequest
from gateway.inference.request import InferenceRequest
from gateway.wire.openai_responses import AnswerEncoder, StreamEncoder, continued, is_kept, previous_of, turns_of
from gateway.wire.writers import AnswerWriter, StreamWriter


async def with_turns_before(conversations: Conversations, tenant: str, request: InferenceRequest) -> InferenceRequest:
    """The request after the turns that led to the response it goes on from.

    Raises:
        InvalidRequest: that response is not there.
    """
    previous = previous_of(request)
    if previous is None:
        return request
    kept = await conversations.get(tenant, previous)
    if kept is None:
        message = f"There is no response {previous[:100]!r} to go on from: it was not stored, or has expired."
        raise InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")
    return continued(request, kept.turns)


async def keep(
    conversations: Conversations, tenant: str, request: InferenceRequest, writer: StreamWriter | AnswerWriter
) -> None:
    """Keep the response before its client is told that it is kept."""
    if not isinstance(writer, StreamEncoder | AnswerEncoder) or not is_kept(request):
        return
    turns = (*turns_of(request), writer.turn)
    kept = KeptResponse(msgspec.Raw(msgspec.json.encode(writer.response())), turns)
    head = writer.head
    head.kept = await conversations.put(tenant, head.response_id, kept)
