from __future__ import annotations

import io
import json
import logging
import os
import warnings

import pytest
import structlog

from gateway.telemetry import log
from gateway.telemetry.record import RequestRecord


@pytest.fixture
def stream():
    """What a configured log writes to; the configuration is undone at the end."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    target = io.BytesIO()
    log.configure(level="info", format="json", stream=target)
    yield target
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_object_a_line(stream):
    """Each event is one line of JSON with its level and its time in UTC."""
    structlog.get_logger().info("listening", url="http://127.0.0.1:8080")
    structlog.get_logger().warning("two\nlines")
    first, second = lines(stream)
    assert (first["event"], first["level"], first["url"]) == ("listening", "info", "http://127.0.0.1:8080")
    assert first["time"].endswith("Z")
    assert second["event"] == "two\nlines"


def test_below_the_level(stream):
    """What is below the level is not written."""
    structlog.get_logger().debug("detail")
    assert stream.getvalue() == b""


def test_record_of_a_request(stream):
    """The line of a request holds the fields of its record."""
    structlog.get_logger().info("request", **RequestRecord(request_id="r1", route="chat", status=200).fields())
    (line,) = lines(stream)
    assert (line["request_id"], line["route"], line["status"]) == ("r1", "chat", 200)


@pytest.mark.parametrize("name", ["prompt", "messages", "body", "text", "content", "api_key", "authorization"])
def test_texts_are_dropped(stream, name):
    """A field that could hold a prompt, an answer or a key is dropped, whoever logs it."""
    structlog.get_logger().info("slip", **{name: "my secret diary"}, kept=1)
    (line,) = lines(stream)
    assert "diary" not in str(line)
    assert line["kept"] == 1


@pytest.mark.parametrize(
    "value",
    [
        "fd-AbCdEf0123456789AbCdEf0123456789",
        "sk-proj-AbCdEf0123456789",
        "sk-ant-api03-AbCdEf0123456789",
        "xai-AbCdEf0123456789",
        "gsk-AbCdEf0123456789",
        "Bearer AbCdEf0123456789.x.y",
        "bearer AbCdEf0123456789",
    ],
)
def test_keys_are_replaced_wherever_they_stand(stream, value):
    """A key is replaced in values, lists, messages and tracebacks alike."""
    logger = structlog.get_logger()
    logger.info("a", reason=f"401 for {value}.")
    logger.info("b", deep={"list": [value]})
    event = f"c {value}"
    logger.info(event)
    try:
        raise RuntimeError(value)
    except RuntimeError:
        logger.exception("d")
    assert len(lines(stream)) == 4
    assert b"AbCdEf" not in stream.getvalue()
    assert b"***" in stream.getvalue()


def test_what_only_looks_like_a_key(stream):
    """Ids and words that hold a key's first letters stay as they are."""
    structlog.get_logger().info("x", id="0afd-00112233445566", word="risk-averse-people", name="desk-12345678")
    (line,) = lines(stream)
    assert (line["id"], line["word"], line["name"]) == ("0afd-00112233445566", "risk-averse-people", "desk-12345678")


def test_long_values_are_cut(stream):
    """A value that is too long to be a fact is cut, and says how long it was."""
    structlog.get_logger().info("x", reason="y" * 100_000, numbers=list(range(50_000)))
    (line,) = lines(stream)
    assert len(stream.getvalue()) < 10_000
    assert line["reason"].endswith("(100000 characters)")


def test_what_json_does_not_know(stream):
    """A value that has no JSON form is written as its repr; the line is not lost."""
    structlog.get_logger().info("x", path=os.fspath, broken="\udcff")
    assert b"fspath" in stream.getvalue()


def test_libraries(stream):
    """Lines and warnings of libraries take the same way, from `warning` on where a library is talkative."""
    logging.getLogger("some.library").info("hello %s", "you")
    logging.getLogger("aiohttp.access").info("GET /")
    logging.getLogger("aiohttp.client").error("odd")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    found = [(line["logger"], line["level"]) for line in lines(stream)]
    assert found == [("some.library", "info"), ("aiohttp.client", "error"), ("py.warnings", "warning")]
    assert lines(stream)[0]["message"] == "hello you"


def test_what_a_client_sent_is_not_quoted(stream):
    """The server tells of bad HTTP with the bytes themselves, maybe a prompt or a key: only the kind is logged."""
    try:
        raise ValueError("400: b'PATIENT-SECRET x-api-key: my-own-key'")
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling request %s", "PATIENT-SECRET")
    (line,) = lines(stream)
    assert (line["event"], line["kind"]) == ("bad_http", "ValueError")
    assert b"SECRET" not in stream.getvalue()
    assert b"my-own-key" not in stream.getvalue()


def test_library_that_logs_wrongly(stream):
    """A library's arguments that do not fit its format cost the arguments, not the line."""
    record = logging.LogRecord("some.library", logging.ERROR, "x.py", 1, "odd %d", ("x",), None)
    log._LibraryLines().emit(record)
    assert lines(stream)[0]["message"] == "odd %d"


def test_configured_twice(stream):
    """A second configuration replaces the first: nothing is written twice."""
    log.configure(level="info", format="json", stream=stream)
    logging.getLogger("some.library").info("once")
    assert len(lines(stream)) == 1


def test_for_people(stream):
    """The console form has one readable line, without colours where the stream is no terminal, without keys."""
    target = io.BytesIO()
    log.configure(level="info", format="console", stream=target)
    structlog.get_logger().info("listening", url="http://x", key_was="fd-AbCdEf0123456789")
    text = target.getvalue().decode()
    assert "listening" in text
    assert "url=http://x" in text
    assert "AbCdEf" not in text
    assert "\x1b" not in text


def test_auto_without_a_terminal(stream):
    """`auto` is JSON where the stream is no terminal."""
    target = io.BytesIO()
    log.configure(level="info", format="auto", stream=target)
    structlog.get_logger().info("x")
    assert json.loads(target.getvalue())["event"] == "x"


def test_reader_gone(stream):
    """A log that nobody reads any more (a closed pipe) fails nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as target:
        log.configure(level="info", format="json", stream=target)
        structlog.get_logger().info("into the void")
    structlog.get_logger().info("into a closed stream")
