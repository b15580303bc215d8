"""Server-sent events, read from any split of the bytes.

The grammar is WHATWG's (https://html.spec.whatwg.org/multipage/server-sent-events.html): lines end with CR LF, LF or
CR, an empty line ends an event, `data` lines are joined with LF, a line that begins with a colon is a comment, one
BOM may stand in front. What is held between two reads:

    line   the bytes of a line whose end has not come; a CR at the end of a read may be half of CR LF
    event  the `data` lines and the name of an event whose empty line has not come

Nearly every read of a model's stream is one or more whole `data: …` events, and nothing else. `plain_payloads` takes
those apart without touching either state; everything else goes through the lines.
"""

from __future__ import annotations

import re

import msgspec

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""The largest event taken; a whole generated image in one event stays below it."""

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class ServerEvent(msgspec.Struct, frozen=True):
    """One event: its `data` lines joined with LF, and its name (`event:`), empty when it had none."""

    data: bytes
    name: bytes = b""


def frame(payload: bytes) -> bytes:
    """An event with this payload, which must hold no line end."""
    return b"data: " + payload + b"\n\n"


class SSEDecoder:
    """Turns reads into events. Holds at most `max_event_bytes` of an event that is not whole yet."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.overflowed = False
        """An event grew over the limit: it and all after it are lost, the events before it were given out."""
        self._max_event_bytes = max_event_bytes
        self._begun = False
        self._head = b""
        """Up to two bytes at the very start that may be the beginning of a BOM."""
        self._after_cr = False
        """The last read ended with CR: a LF at the start of the next belongs to it."""
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = b""
        self._held = False
        """Some of the above is not empty: the next byte does not begin an event."""

    def plain_payloads(self, data: bytes) -> list[bytes] | None:
        r"""The payloads, if nothing is held back and `data` is exactly whole events of the form `data: …\n\n`.

        None means that nothing was taken and `feed` has to be asked.
        """
        if self._held or not (data.startswith(b"data: ") and data.endswith(b"\n\n")) or b"\r" in data:
            return None
        payloads = data[6:-2].split(b"\n\ndata: ")
        # Each event has its two line ends and no more: no second line, no comment, no other field.
        if data.count(b"\n") != 2 * len(payloads) or len(data) > self._max_event_bytes:
            return None
        self._begun = True
        return payloads

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that end in `data`. Look at `overflowed` after it."""
        if self.overflowed:
            return []
        if not self._begun:
            data = self._without_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        events: list[ServerEvent] = []
        if data:
            self._after_cr = data.endswith(b"\r")
            *lines, rest = _LINE_END.split(data)
            fits = all(self._take_line(self._whole(line), events) for line in lines)
            self._line += rest
            if not fits or not self._fits(len(self._line)):
                self._overflow()
        self._held = bool(self._line or self._data or self._name or self._after_cr or self._head)
        return events

    def close(self) -> list[ServerEvent]:
        """The event that the end of the stream left without its empty line, if there is one."""
        events: list[ServerEvent] = []
        if not self.overflowed and self._take_line(self._whole(b""), events):
            self._take_line(b"", events)
        return events

    def _without_bom(self, data: bytes) -> bytes:
        data = self._head + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._head = data
            return b""
        self._head = b""
        self._begun = True
        return data.removeprefix(_BOM)

    def _whole(self, end: bytes) -> bytes:
        """The line whose last bytes are `end`."""
        if not self._line:
            return end
        self._line += end
        line = bytes(self._line)
        self._line.clear()
        return line

    def _take_line(self, line: bytes, events: list[ServerEvent]) -> bool:
        """Take in one line; False when its event grew over the limit."""
        if not line:
            if self._data:
                events.append(ServerEvent(b"\n".join(self._data), self._name))
                self._data.clear()
            self._data_bytes = 0
            self._name = b""
            return True
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            # A list entry costs memory of its own: without it, a flood of empty `data` lines would count for nothing.
            self._data_bytes += len(value) + 8
        elif field == b"event":
            self._name = value
        return self._fits(0)

    def _fits(self, line_bytes: int) -> bool:
        return self._data_bytes + line_bytes <= self._max_event_bytes

    def _overflow(self) -> None:
        self.overflowed = True
        self._line.clear()
        self._data.clear()
