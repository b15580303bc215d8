import json

import pytest

from gateway.inference.deployment import FREE, Backend, Deployment
from gateway.inference.request import InferenceRequest, Message
from gateway.wire import scoring

DEPLOYMENT = Deployment(
    id="gpu/m", backend=Backend(name="gpu", type="openai", base_url="http://x/v1", region="r"), model="m", price=FREE
)
REQUEST = InferenceRequest(surface="chat", model="large", messages=(Message("user", "Hello?"),), fields={})


def entry(token, logprob):
    return {"7": {"logprob": logprob, "rank": 1, "decoded_token": token}}


def vllm(*entries):
    return json.dumps({"prompt_logprobs": [None, *entries], "usage": {"prompt_tokens": 9, "completion_tokens": 1}})


def test_vllm_is_asked_to_continue_the_draft():
    """The draft is the last message, left open; nothing is streamed, one token is written."""
    body = json.loads(scoring.vllm_request(REQUEST, DEPLOYMENT, "It is."))
    assert body["messages"] == [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "It is."}]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert (body["prompt_logprobs"], body["max_tokens"], body["stream"]) == (0, 1, False)


def test_the_drafts_tokens_are_those_at_the_end():
    """However the tokenizer treats white space; what stands before them is not looked at."""
    body = vllm(entry("user", -9), entry("\n", -8), entry("It", -0.5), entry(" is", -0.25), entry(".", -0.1)).encode()
    assert scoring.vllm_logprobs(body, "It is.") == (-0.5, -0.25, -0.1)
    body = vllm(entry("\n", -8), entry("It", -0.5), entry("is", -0.25), entry(".", -0.1)).encode()
    assert scoring.vllm_logprobs(body, " It is.\n") == (-0.5, -0.25, -0.1)
    assert scoring.vllm_usage(body).input_tokens == 9


@pytest.mark.parametrize(
    "body",
    [
        vllm(entry("It", -0.5)),
        vllm(entry("Is", -0.5), entry(" not", -0.5)),
        vllm(entry("It", -0.5), None),
        vllm(entry("It", -0.5), entry("�", -0.5)),
        vllm(entry("It", 0.5), entry(" is.", -0.5)),
        json.dumps({"choices": []}),
        "[]",
        "not json",
        "",
    ],
)
def test_what_does_not_fit_is_no_score(body):
    """Other tokens, fewer tokens, none at all, or no answer: never a number that means something else."""
    with pytest.raises(scoring.Unreadable):
        scoring.vllm_logprobs(body.encode(), "It is.")


def sglang(entries, **meta):
    return json.dumps({"text": "", "meta_info": {"prompt_tokens": 5, "input_token_logprobs": entries, **meta}}).encode()


def test_sglang_is_sent_tokens_and_starts_one_early():
    """The first entry has no log-probability, so the draft's are asked for from the token before it."""
    assert json.loads(scoring.tokenize_request(DEPLOYMENT, "p", "d"))["prompt"] == ["p", "d"]
    assert scoring.tokenized(b'{"tokens": [[1, 2, 3], [4, 5]], "count": [3, 2]}') == ([1, 2, 3], [4, 5])
    body = json.loads(scoring.sglang_request([1, 2, 3], [4, 5]))
    assert (body["input_ids"], body["logprob_start_len"]) == ([1, 2, 3, 4, 5], 2)
    assert body["sampling_params"]["max_new_tokens"] == 0
    answer = sglang([[None, 3, None], [-0.5, 4, None], [-0.25, 5, None]], cached_tokens=3)
    assert scoring.sglang_logprobs(answer, [4, 5]) == (-0.5, -0.25)
    assert scoring.sglang_usage(answer).cached_input_tokens == 3


@pytest.mark.parametrize(
    "entries", [[], [[-0.5, 4]], [[-0.5, 9], [-0.5, 5]], [[None, 4], [-0.5, 5]], [["x", 4], [-0.5, 5]], [[], []], None]
)
def test_scores_of_other_tokens_are_no_score(entries):
    """The ids are compared, each has its number."""
    with pytest.raises(scoring.Unreadable):
        scoring.sglang_logprobs(sglang(entries), [4, 5])


@pytest.mark.parametrize("body", [b"{}", b'{"tokens": [[1]]}', b'{"tokens": [[], [1]]}', b'{"tokens": [[1], ["a"]]}'])
def test_tokens_that_cannot_be_used(body):
    """One list each for prompt and draft, of numbers, and not empty."""
    with pytest.raises(scoring.Unreadable):
        scoring.tokenized(body)
