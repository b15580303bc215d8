"""The log as people on a terminal read it."""

import io

import pytest
import structlog

from gateway.telemetry import log
from gateway.telemetry.record import AttemptRecord, RequestRecord


@pytest.fixture
def told():
    """Logs in the console's form; gives what was written."""
    target = io.BytesIO()
    log.configure(level="info", format="console", stream=target)
    yield lambda: target.getvalue().decode()
    structlog.reset_defaults()


def test_a_request_is_one_short_line(told):
    """Time, what was asked, how it ended and what it took come first; lists of figures are left to the JSON form."""
    record = RequestRecord(
        request_id="req-1",
        method="POST",
        path="/v1/chat/completions",
        tenant="acme",
        route="chat",
        deployment="b/large",
        cache="bypass",
        status=200,
        e2e_s=0.0541,
        final_ttft_s=1.25,
        input_tokens=11,
        output_tokens=7,
        cost_nanousd=33_000,
        attempts=[AttemptRecord(deployment="b/large", outcome="ok")],
    )
    structlog.get_logger().info("request", **record.fields())
    (line,) = told().splitlines()
    assert line[10] == "T"
    assert line[19] == "Z"
    for part in ("POST /v1/chat/completions 200", "took=54ms", "first_token=1.2s", "tokens=11+7", "cost=$0.000033"):
        assert part in line
    assert line.endswith("id=req-1")
    assert "attempts" not in line
    assert "bypass" not in line
    assert len(line) < 220


def test_why_attempts_failed_is_told_once(told):
    """Three tries that failed alike are one reason; one that lost or was cancelled is none."""
    failed = AttemptRecord(deployment="b/large", outcome="backend_unreachable", detail="b/large: no route to 10.0.0.7")
    lost = AttemptRecord(deployment="c/large", outcome="lost")
    record = RequestRecord(request_id="r", status=502, error="backend_unreachable", attempts=[failed, failed, lost])
    structlog.get_logger().info("request", **record.fields())
    assert told().count("10.0.0.7") == 1
    assert "502 backend_unreachable" in told()
    assert "c/large" not in told()
