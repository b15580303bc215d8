import json

import pytest

from gateway.inference.usage import Usage
from gateway.wire import anthropic_messages_answer, openai_chat_answer, openai_embeddings
from gateway.wire.openai_chat_answer import read_usage


def test_kinds_of_tokens():
    """Cached, audio, reasoning and rejected tokens are read apart, as parts of input and output."""
    given = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 6, "rejected_prediction_tokens": 7},
    }
    assert read_usage(given) == Usage(
        input_tokens=100,
        output_tokens=50,
        cached_input_tokens=40,
        audio_input_tokens=10,
        reasoning_tokens=5,
        audio_output_tokens=6,
        rejected_prediction_tokens=7,
    )


def test_parts_that_are_larger_than_their_whole():
    """No backend makes a part cost more than the whole."""
    details = {"audio_tokens": 10**9, "rejected_prediction_tokens": "many"}
    found = read_usage({"prompt_tokens": 1, "completion_tokens": 2, "completion_tokens_details": details})
    assert (found.audio_output_tokens, found.rejected_prediction_tokens) == (2, 0)


@pytest.mark.parametrize("odd", [-1, 10**30, 2**63, 1.5, "7", True, [7], {}], ids=str)
def test_counts_that_are_no_counts(odd):
    """Whatever stands where a number of tokens should, the answer is given, and what it used is estimated."""
    message = {"role": "assistant", "content": "hi"}
    chat = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    claude = {"type": "message", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"}
    vectors = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}]}
    for decode, body, usage in (
        (openai_chat_answer.decode_answer, chat, {"prompt_tokens": odd, "completion_tokens": 3}),
        (anthropic_messages_answer.decode_answer, claude, {"input_tokens": 5, "output_tokens": odd}),
        (openai_embeddings.decode_answer, vectors, {"prompt_tokens": odd}),
    ):
        answer = decode(json.dumps(body | {"usage": usage}).encode(), deployment="d")
        assert answer.usage is None
    whole = {"input_tokens": 5.0, "output_tokens": 3, "cache_read_input_tokens": None}
    found = anthropic_messages_answer.decode_answer(json.dumps(claude | {"usage": whole}).encode(), deployment="d")
    assert found.usage == Usage(input_tokens=5, output_tokens=3)
