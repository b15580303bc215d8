import asyncio
import io
import json

import pytest
import structlog

from gateway.telemetry import log
from gateway.telemetry.record import AttemptRecord, RequestRecord
from gateway.telemetry.request_log import Form, RequestLog

RECORD = RequestRecord(
    request_id="req-1",
    model="fd-AbCdEf0123456789",
    route="chat",
    status=200,
    labels=("health",),
    attempts=[AttemptRecord(deployment="cloud/m", outcome="ok", queue_s=0.1234567891)],
    e2e_s=0.1234567891,
)


@pytest.fixture(autouse=True)
def reset():
    yield
    structlog.reset_defaults()


class Stream(io.BytesIO):
    """Counts writes."""

    writes = 0

    def write(self, data):
        self.writes += 1
        return super().write(data)

    def isatty(self):
        return False


async def test_the_same_line_as_structlog_writes():
    """The short cut changes what a line costs, not what it says: fields, order, rounding, keys replaced."""
    stream = Stream()
    log.configure(level="info", format="json", stream=stream)
    RequestLog().write(RECORD)
    await asyncio.sleep(0)
    structlog.get_logger().info("request", **RECORD.fields())
    ours, theirs = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert list(ours) == list(theirs)
    assert ours | {"time": ""} == theirs | {"time": ""}
    assert len(ours["time"]) == len(theirs["time"])
    assert ours["model"] == "fd-***"


async def test_the_same_line_by_its_form():
    """A line that is put together from a form says what the whole record says, keys replaced."""
    stream = Stream()
    log.configure(level="info", format="json", stream=stream)
    lines = RequestLog()
    hit = RECORD.copy()
    hit.attempts, hit.final_ttft_s = [], 0.0000201
    other = hit.copy()
    other.request_id, other.final_ttft_s, other.e2e_s = "req-2", 1.5, 0.25
    lines.write(other)
    lines.write(other, Form(hit))
    await asyncio.sleep(0)
    whole, formed = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert list(whole) == list(formed)
    assert whole | {"time": ""} == formed | {"time": ""}
    assert formed["model"] == "fd-***"


async def test_lines_of_one_turn_are_one_write():
    """Many requests that end together cost one write; each is a line of its own."""
    stream = Stream()
    log.configure(level="info", format="json", stream=stream)
    lines = RequestLog()
    for _ in range(5):
        lines.write(RECORD)
    await asyncio.sleep(0)
    assert (stream.writes, len(stream.getvalue().splitlines())) == (1, 5)


async def test_what_waits_is_written_at_the_end():
    """Closing loses no line."""
    stream = Stream()
    log.configure(level="info", format="json", stream=stream)
    lines = RequestLog()
    lines.write(RECORD)
    lines.close()
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize(("level", "form", "expected"), [("warning", "json", 0), ("info", "console", 1)])
async def test_level_and_format_are_obeyed(level, form, expected):
    """A level above info logs no requests; a log for people goes through structlog."""
    stream = Stream()
    log.configure(level=level, format=form, stream=stream)
    RequestLog().write(RECORD)
    await asyncio.sleep(0)
    assert len(stream.getvalue().splitlines()) == expected
