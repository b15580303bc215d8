from gateway.telemetry.recent import Recent
from gateway.telemetry.record import AttemptRecord, RequestRecord


def record(number, tenant):
    return RequestRecord(request_id=f"req-{number}", tenant=tenant)


def test_a_tenant_sees_its_own_requests_only():
    """Another tenant's request id finds nothing."""
    recent = Recent()
    recent.add(record(1, "acme"))
    recent.add(record(2, "other"))
    assert recent.get("acme", None).request_id == "req-1"
    assert recent.get("acme", "req-2") is None
    assert recent.get("nobody", None) is None


def test_the_oldest_are_forgotten():
    """Memory stays bounded, and a forgotten last request is no longer anybody's last."""
    recent = Recent()
    recent.add(record(0, "quiet"))
    for number in range(1, 1_001):
        recent.add(record(number, "busy"))
    assert recent.get("quiet", None) is None
    assert recent.get("busy", None).request_id == "req-1000"


def test_what_was_said_of_single_tokens_is_not_kept():
    """It is kilobytes for each answer of the edge; its features stay."""
    recent, drafted = Recent(), record(0, "acme")
    drafted.attempts.append(AttemptRecord(deployment="edge", logprobs=[-0.1] * 64, margins=[0.5] * 64, features=(1.0,)))
    recent.add(drafted)
    [kept] = recent.get("acme", None).attempts
    assert (kept.logprobs, kept.margins, kept.features) == ([], [], (1.0,))
