import itertools

import msgspec
import pytest

from gateway.cache.key import LEFT_OUT, cache_key
from gateway.inference.request import InferenceRequest
from gateway.wire import (
    anthropic_messages_request,
    openai_chat_request,
    openai_completions,
    openai_embeddings,
    openai_responses_request,
)

FIELDS = {
    "model": b'"large"',
    "messages": b'[{"role":"user","content":"Hi"}]',
    "temperature": b"0",
    "stream": b"true",
}


def key(fields=None, *, secret=b"s" * 32, surface="chat", **changes) -> str:
    fields = FIELDS if fields is None else fields
    raw = {name: msgspec.Raw(value) for name, value in fields.items()}
    request = InferenceRequest(surface=surface, model="large", messages=(), fields=raw)
    defaults = {"tenant": "acme", "deployment_ids": ("gpu/a", "gpu/b"), "policy_part": "chat", "extra": b""}
    return cache_key(secret, request=request, **(defaults | changes))


def test_same_request():
    """The same request has the same key, in whatever order its fields came."""
    assert len({key(dict(order)) for order in itertools.permutations(FIELDS.items())}) == 1


OTHERS = {
    "another tenant": {"tenant": "globex"},
    "all tenants": {"tenant": ""},
    "a tenant called as the mark for all": {"tenant": "shared"},
    "another deployment": {"deployment_ids": ("gpu/a", "gpu/c")},
    "one deployment less": {"deployment_ids": ("gpu/a",)},
    "the same letters in one deployment": {"deployment_ids": ("gpu/agpu/b",)},
    "another route": {"policy_part": "chat2"},
    "retrieved passages": {"extra": b"passage"},
    "policy and passages divided otherwise": {"policy_part": "cha", "extra": b"t"},
    "another secret": {"secret": b"t" * 32},
    "another surface": {"surface": "messages"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_whatever_can_change_the_answer_separates(other):
    """Tenant, deployments, policy, passages, surface and secret are all in the key."""
    assert key() != key(**other)


FIELD_CHANGES = {
    "another value": FIELDS | {"temperature": b"0.1"},
    "the same number written otherwise": FIELDS | {"temperature": b"0.0"},
    "a space in a value": FIELDS | {"messages": b'[{"role":"user", "content":"Hi"}]'},
    "a field less": {name: value for name, value in FIELDS.items() if name != "temperature"},
    "another field": FIELDS | {"top_k": b"1"},
    "a field that nobody knows": FIELDS | {"x_unknown": b"1"},
    "metadata": FIELDS | {"metadata": b"{}"},
    "storing at the provider": FIELDS | {"store": b"true"},
    "usage in every chunk": FIELDS | {"stream_options": b'{"include_usage":true,"continuous_usage_stats":true}'},
    "stream options that are none": FIELDS | {"stream_options": b"7"},
    "name and value divided otherwise": FIELDS | {"model": b'"larg', "e": b'"'},
}


@pytest.mark.parametrize("fields", FIELD_CHANGES.values(), ids=FIELD_CHANGES)
def test_every_field_separates(fields):
    """All request fields are in the key, unknown ones too, byte for byte."""
    assert key() != key(fields)


KNOWN = {
    "chat": openai_chat_request._KNOWN,
    "completions": openai_completions._KNOWN,
    "embeddings": openai_embeddings._KNOWN,
    "messages": anthropic_messages_request._KNOWN,
    "responses": openai_responses_request._KNOWN,
}
"""By schema, the fields that the gateway knows. `draft` is the gateway's own, and no draft is ever kept."""


@pytest.mark.parametrize(
    ("surface", "name"), [(surface, name) for surface, names in KNOWN.items() for name in sorted(names - {"draft"})]
)
def test_each_known_field_separates_or_has_a_reason(surface, name):
    """Each field of each schema is in the key, unless it is on the list of those left out, with a reason."""
    with_it, without = FIELDS | {name: b'["x"]'}, {key: value for key, value in FIELDS.items() if key != name}
    same = key(with_it, surface=surface) == key(without, surface=surface)
    assert same == (name in LEFT_OUT)
    assert all(len(reason) > 20 for reason in LEFT_OUT.values())


LEFT_OUT_CHANGES = {
    **{name: FIELDS | {name: b'"x"'} for name in LEFT_OUT},
    "not streamed": FIELDS | {"stream": b"false"},
    "stream_options": FIELDS | {"stream_options": b'{"include_usage": true}'},
    "stream_options null": FIELDS | {"stream_options": b"null"},
}


@pytest.mark.parametrize("fields", LEFT_OUT_CHANGES.values(), ids=LEFT_OUT_CHANGES)
def test_what_cannot_change_the_answer_is_left_out(fields):
    """Fields that no model sees do not keep an answer from being found."""
    assert key() == key(fields)


def test_key_shows_nothing():
    """A key is 64 hexadecimal digits; strange names and values are no exception."""
    strange = key({"\ud800": b"\xff"}, tenant="\ud800")
    assert len(strange) == 64
    assert int(strange, 16)
