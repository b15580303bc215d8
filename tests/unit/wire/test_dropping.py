import json

import pytest

from gateway.wire import anthropic_messages, openai_chat, openai_responses
from gateway.wire.dropping import without

ASK = [{"role": "user", "content": "?"}]


def chat(**more):
    return openai_chat.decode_request(json.dumps({"model": "m", "messages": ASK, **more}).encode())


def responses(**more):
    return openai_responses.decode_request(json.dumps({"model": "m", "input": "?", **more}).encode())


def messages(**more):
    body = {"model": "m", "messages": ASK, "max_tokens": 9, **more}
    return anthropic_messages.decode_request(json.dumps(body).encode())


def test_a_field_that_is_not_there_changes_nothing():
    """The same request comes back, and nothing is said to be dropped."""
    request = chat(seed=3)
    assert without(request, frozenset({"logit_bias"})) == (request, ())
    assert without(chat(logit_bias={}), frozenset({"logit_bias"}))[1] == ()


def test_a_field_leaves_the_body_and_what_was_read_of_it():
    """A field is gone for backends of the same schema and of another."""
    request, dropped = without(chat(seed=3, top_p=0.5, store=True), frozenset({"seed", "store", "user"}))
    assert dropped == ("seed", "store")
    assert request.sampling.seed is None
    assert request.sampling.top_p == 0.5
    assert set(request.fields) == {"model", "messages", "top_p"}


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (responses(reasoning={"effort": "low"}), "reasoning_effort"),
        (responses(text={"verbosity": "low"}), "verbosity"),
        (responses(truncation="auto"), "truncation"),
        (messages(top_k=4), "top_k"),
        (messages(context_management={"edits": []}), "context_management"),
        (messages(thinking={"type": "enabled", "budget_tokens": 1024}), "reasoning_effort"),
    ],
)
def test_every_surface_loses_what_chat_calls_it(request_, name):
    """One word of policy means the same on all surfaces, and what only a native backend knows can be dropped too."""
    less, dropped = without(request_, frozenset({name}))
    assert dropped == (name,)
    assert without(less, frozenset({name})) == (less, ())
    assert name not in less.native_only
