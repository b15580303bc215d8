"""The log: structlog to standard error, one JSON object a line, or for people on a terminal.

What libraries log through the standard library goes the same way. Two things never reach the log: text of prompts and
answers (fields with their names are dropped, and long values are cut), and keys (replaced in the finished line,
wherever they stand). A log that cannot be written (a closed pipe, a full disk) never fails a request.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable
from typing import BinaryIO, Literal

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from gateway.telemetry import console

LogFormat = Literal["auto", "json", "console"]

_DROPPED = frozenset({"prompt", "messages", "body", "text", "content", "api_key", "authorization", "fields"})
"""Fields that could hold a prompt, an answer or a key: whoever logs them by mistake does not."""
_LONG_LINE = 4_000
"""Bytes; no line about a request comes near it. In a longer one, long values are cut."""
_LONGEST_VALUE = 2_000
"""Characters of one value of a long line. The traceback (`exception`) may be longer."""
_LONGEST_EXCEPTION = 20_000
_KEY = re.compile(rb"(?:(?<![A-Za-z0-9])(?:fd|sk|gsk|xai)-|[Bb]earer )[A-Za-z0-9_\-.~+/=]{8,}")
_KEY_STARTS = (b"fd-", b"sk-", b"xai-", b"earer ")
"""One of these stands in every line that `_KEY` can match: finding none is 20 times cheaper than the expression."""
_QUOTING_LIBRARIES = frozenset({"aiohttp.server", "aiohttp.web"})
"""Their records quote what a client sent."""
_QUIET_LIBRARIES = ("asyncio", "aiohttp", "httpx", "httpcore", "redis", "urllib3")
"""At `info` and below these tell of every connection; from them only warnings are logged."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(
    *,
    level: str,
    format: LogFormat,  # noqa: A002 the setting's name, without its room's
    stream: BinaryIO | None = None,
) -> None:
    """Set the process's logging up; called once, by what starts the process. `stream` is standard error if not given.

    `auto` is `console` when the stream is a terminal, else `json`.
    """
    stream = stream or sys.stderr.buffer
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            drop_texts,
            _console(stream) if for_people(format, stream) else to_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.BytesLoggerFactory(file=_Unbreakable(stream)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    _route_libraries(_LEVELS[level])


def for_people(format: LogFormat, stream: BinaryIO) -> bool:  # noqa: A002 the setting's name
    """Whether people read this log: asked for, or `auto` on a terminal."""
    return format == "console" or (format == "auto" and stream.isatty())


def drop_texts(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Remove fields that could hold a prompt, an answer or a key."""
    if not _DROPPED.isdisjoint(event):
        for name in _DROPPED.intersection(event):
            del event[name]
    return event


def to_json(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    """One line of JSON, keys replaced. What JSON does not know is written as its repr."""
    return finished_line({"time": event.get("time"), "level": event.get("level"), "event": event.get("event"), **event})


def finished_line(event: EventDict) -> bytes:
    """The JSON line of an event that holds no text; its fields stay in their order."""
    line = _dumps(event)
    return redact(line if len(line) <= _LONG_LINE else _dumps(_cut(event)))


def writes_json(processors: Iterable[Processor]) -> bool:
    """Whether a log that is set up with these writes JSON."""
    return to_json in processors


def _dumps(event: EventDict) -> bytes:
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a lone surrogate: what a header that is not UTF-8 becomes
        return json.dumps(event, default=repr).encode("ascii")


def _cut(event: EventDict) -> EventDict:
    """The event without what is too long to be a fact."""
    short: EventDict = {}
    for name, value in event.items():
        limit = _LONGEST_EXCEPTION if name == "exception" else _LONGEST_VALUE
        text = value if isinstance(value, str) else repr(value)
        short[name] = value if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
    return short


def redact(line: bytes) -> bytes:
    """The line with every API key in it replaced by its first letters."""
    for start in _KEY_STARTS:
        if start in line:
            return _KEY.sub(_first_letters, line)
    return line


def _first_letters(match: re.Match[bytes]) -> bytes:
    start = next(start for start in _KEY_STARTS if start in match[0])
    return match[0][: match[0].index(start) + len(start)] + b"***"


def _console(stream: BinaryIO) -> Processor:
    rendered = console.renderer(stream)

    def render(logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        return redact(str(rendered(logger, method, event)).encode("utf-8", "backslashreplace"))

    return render


class _Unbreakable:
    """A stream whose trouble stays its own: a line that cannot be written is lost."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        self._guarded(lambda: self._stream.write(data))

    def flush(self) -> None:
        self._guarded(self._stream.flush)

    @staticmethod
    def _guarded(act: Callable[[], object]) -> None:
        try:
            act()
        except (OSError, ValueError):  # ValueError: the stream is closed
            return


class _LibraryLines(logging.Handler):
    """Records of the standard library's logging, as structlog lines with the name of their logger."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name in _QUOTING_LIBRARIES:
            # What is wrong with a client's bytes is told with those bytes: prompts and keys. Only its kind is logged.
            kind = record.exc_info[0] if record.exc_info else None
            structlog.get_logger().warning("bad_http", kind="" if kind is None else kind.__name__)
            return
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit the format, as the standard library forgives them
            message = str(record.msg)
        structlog.get_logger().log(
            min(record.levelno, logging.CRITICAL),
            "library",
            logger=record.name,
            message=message,
            exc_info=record.exc_info,
        )


def _route_libraries(level: int) -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _LibraryLines)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryLines())
    root.setLevel(level)
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
