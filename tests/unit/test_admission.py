"""What a request asks of its budgets before it runs."""

from dataclasses import replace

import msgspec
import pytest

from gateway.admission import Promises, most_tokens, needed, worst_case
from gateway.budgets.claim import Hold
from gateway.budgets.claim import worst_case as worst_charge
from gateway.budgets.limit import Limit, Rate
from gateway.policy.load import load_policy
from gateway.telemetry.record import AttemptRecord, RequestRecord
from gateway.wire.openai_chat_request import decode_request

POLICY = """
backends:
  cloud: {type: openai, base_url: 'http://127.0.0.1:9/v1', region: eu}
models:
  large:
    - {backend: cloud, model: m, price: {input: 1, output: 2}, max_output_tokens: 100, image_tokens: 300}
    - {backend: cloud, model: dear, price: {input: 1, output: 2}, max_output_tokens: 100}
routes:
  - {name: chat, mode: cloud_only}
tenants:
  acme: {budgets: [{tokens: 10000, per: day}]}
"""
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.fixture
def policy(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    return load_policy(tmp_path, {})


def claimed(policy, **body):
    """The claim of a request, the request, and what may answer it."""
    message = {"role": "user", "content": body.pop("content", "hi")}
    request = decode_request(msgspec.json.encode({"model": "large", "messages": [message], **body}))
    record = RequestRecord(request_id="req-1")
    return worst_case(record, request, policy.tenants["acme"], policy.models["large"]), request, record


def hold_of(claim, tokens):
    return Hold(hold_id="1", claim=claim, output_tokens=tokens, reserved=worst_charge(claim, tokens), is_limited=True)


def test_images_cost_what_their_deployment_says(policy):
    """A hold has the first target's bound for each image; another target needs its own."""
    plain, _, _ = claimed(policy)
    claim, request, record = claimed(policy, content=[{"type": "text", "text": "hi"}, IMAGE, IMAGE])
    assert claim.input_tokens == plain.input_tokens + 2 * 300
    hold, (_, other) = hold_of(claim, 100), policy.models["large"]
    record.attempts.append(AttemptRecord(deployment="cloud/m", outcome="error"))
    assert needed(record, hold, request, {}, other).tokens == plain.input_tokens + 2 * 5_000 + 100


def test_two_that_are_asked_at_the_same_time_have_room_for_both(policy):
    """While the store is asked about one, another is promised room beside it; once it runs, it is counted as that."""
    claim, request, record = claimed(policy)
    hold, (one, other) = hold_of(claim, 100), policy.models["large"]
    targets, promises = {at.id: at for at in (one, other)}, Promises(record)
    alone = needed(record, hold, request, targets, one, promised=promises.beside(one))
    both = needed(record, hold, request, targets, other, promised=promises.beside(other))
    assert both.tokens == 2 * alone.tokens
    record.attempts.append(AttemptRecord(deployment=one.id))
    assert record.attempts[0].outcome == "running"
    assert needed(record, hold, request, targets, other, promised=promises.beside(other)) == both
    assert not promises.kept(other, is_within=False)
    assert promises.beside(one) == []


def test_a_prediction_is_in_the_worst_case(policy):
    """All of it may be rejected, and billed as output; the answer itself may be no longer for that."""
    plain, _, _ = claimed(policy, max_tokens=50)
    prediction = {"type": "content", "content": "x" * 1_000}
    claim, request, _ = claimed(policy, max_tokens=50, prediction=prediction)
    assert plain.output_tokens == 50
    assert claim.output_tokens > 1_050
    assert claim.min_output_tokens > 1_000
    assert most_tokens(request, policy.tenants["acme"], hold_of(claim, claim.output_tokens)) == 50


@pytest.mark.parametrize(
    ("limits", "rate", "most"),
    [
        ((), None, 50),
        ((Limit(amount=9, unit="tokens", per="day"),), None, 20),
        ((), Rate(requests=5, tokens=None, per_s=60), 50),
        ((), Rate(requests=None, tokens=100, per_s=60), 20),
    ],
)
def test_answers_are_clamped_where_something_counts_their_tokens(policy, limits, rate, most):
    """What was granted bounds the answer, unless neither a budget nor a rate counts tokens."""
    claim, request, _ = claimed(policy, max_tokens=50, n=2)
    hold = Hold(hold_id="1", claim=claim, output_tokens=40, reserved=worst_charge(claim, 40), is_limited=bool(limits))
    tenant = policy.tenants["acme"]
    assert most_tokens(request, replace(tenant, limits=limits, rate=rate), hold) == most
