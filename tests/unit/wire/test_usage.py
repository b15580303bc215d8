from gateway.inference.usage import Usage
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
