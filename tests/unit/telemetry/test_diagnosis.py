from __future__ import annotations

import pytest

from gateway.telemetry.diagnosis import ADVICE, Scrape, diagnose
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.record import AttemptRecord, RequestRecord
from gateway.telemetry.snapshot import Snapshot
from gateway.telemetry.waste import thrown_away

SNAPSHOT = Snapshot(version="1", policy="p", policy_refused=False, store_up=True)


def rendered(metrics):
    return metrics.render(SNAPSHOT).decode()


def observed(*attempts, number=10, metrics=None, **facts):
    """A gateway's metrics after so many requests with these attempts."""
    metrics = metrics or Metrics()
    for _ in range(number):
        fields = {"route": "chat", "mode": "cloud_only", "status": 200, "deployment": "gpu/large", **facts}
        metrics.observe(RequestRecord(request_id="r", attempts=list(attempts), **fields))
    return metrics


def backend(**phases):
    usual = {"queue_s": 0.0, "connect_s": 0.001, "network_s": 0.001, "prefill_s": 0.2, "decode_s": 0.2}
    return AttemptRecord(deployment="gpu/large", outcome="ok", input_tokens=10, output_tokens=5, **{**usual, **phases})


def edge(**phases):
    usual = {"queue_s": 0.0, "connect_s": 0.0, "prefill_s": 0.02, "decode_s": 0.02}
    return AttemptRecord(deployment="edge/smollm2", at="edge", role="draft", outcome="ok", **{**usual, **phases})


@pytest.mark.parametrize(
    ("attempt", "place", "phase"),
    [
        (backend(queue_s=3.0), "backend", "queue"),
        (backend(connect_s=3.0), "backend", "connect"),
        (backend(network_s=3.0, prefill_s=3.2), "backend", "network"),
        (backend(prefill_s=3.0), "backend", "prefill"),
        (backend(decode_s=3.0), "backend", "decode"),
        (edge(queue_s=3.0), "edge", "queue"),
        (edge(prefill_s=3.0), "edge", "prefill"),
        (edge(decode_s=3.0), "edge", "decode"),
    ],
)
def test_the_slow_phase_is_named_with_what_helps(attempt, place, phase):
    """Each phase, at the edge and at a backend, is told from all others, and comes with advice of its own."""
    (finding,) = diagnose(Scrape(rendered(observed(attempt)))).findings
    assert finding.startswith(f"Slow phase: {phase} at the {place} ({attempt.deployment})")
    assert ADVICE[place, phase] in finding


def test_answers_at_once_have_one_phase():
    """Where nothing is streamed only the whole is known, and that is said."""
    attempt = AttemptRecord(deployment="gpu/large", outcome="ok", connect_s=0.001, whole_s=2.0)
    (finding,) = diagnose(Scrape(rendered(observed(attempt)))).findings
    assert "whole at the backend" in finding


def test_a_few_requests_are_no_ground_for_a_word():
    """Under five attempts nothing is called slow."""
    assert diagnose(Scrape(rendered(observed(backend(prefill_s=9.0), number=4)))).findings == ()


def test_between_two_scrapes_only_what_happened_there_counts():
    """`--for` sees the present, however the hours before were."""
    metrics = observed(backend(decode_s=30.0), number=100)
    before = Scrape(rendered(metrics))
    observed(backend(prefill_s=3.0), metrics=metrics)
    diagnosis = diagnose(Scrape(rendered(metrics), before))
    assert diagnosis.deployments[0].attempts == 10
    assert "Slow phase: prefill" in diagnosis.findings[0]


def test_time_that_goes_by_in_the_gateway_is_its_own():
    """A first token that came far later than its attempt's phases add up to."""
    found = diagnose(Scrape(rendered(observed(backend(), final_ttft_s=2.0)))).findings
    assert any("go by in the gateway" in finding for finding in found)


def test_what_fails_comes_first():
    """A deployment that fails or is passed over, a store that is gone, a policy that was refused."""
    metrics = observed(AttemptRecord(deployment="gpu/large", outcome="backend_timeout"), backend())
    metrics.health_changed("gpu/large", "open")
    broken = Snapshot(version="1", policy="p", policy_refused=True, store_up=False)
    found = diagnose(Scrape(metrics.render(broken).decode())).findings
    assert [start for finding in found for start in [finding.split()[0]]][:4] == [
        "The",
        "The",
        "gpu/large",
        "gpu/large",
    ]
    assert "10 of 20 attempts, mostly with backend_timeout" in found[3]


def test_useless_work_is_told():
    """Tokens of hedges that lost, beside those that were used; drafts that came too late."""
    lost = AttemptRecord(deployment="b/large", outcome="lost", input_tokens=10, output_tokens=0)
    metrics = observed(backend(), lost, edge(), draft="dropped", input_tokens=10, output_tokens=5)
    found = diagnose(Scrape(rendered(metrics))).findings
    assert any("100 tokens were thrown away (hedge)" in finding for finding in found)
    assert any("10 of 10 drafts came too late" in finding for finding in found)


def test_tokens_that_were_thrown_away():
    """By reason: a dropped draft, the loser of a hedge, a failure; not what a client got before it left."""
    attempts = [
        AttemptRecord(deployment="edge/m", role="draft", outcome="cancelled", logprobs=[-0.1] * 7),
        AttemptRecord(deployment="a/m", outcome="lost", input_tokens=20, output_tokens=1),
        AttemptRecord(deployment="b/m", outcome="backend_cut", input_tokens=20, output_tokens=3),
        AttemptRecord(deployment="c/m", outcome="cancelled", input_tokens=20, output_tokens=3),
    ]
    record = RequestRecord(request_id="r", draft="dropped", attempts=attempts)
    assert thrown_away(record) == {"draft": 7, "hedge": 21, "failed": 23}
    assert thrown_away(RequestRecord(request_id="r", draft="confirmed", attempts=attempts[:1])) == {}
