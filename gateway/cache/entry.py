"""What is kept of an answer, and how it is written down.

A byte for the form (1 plain, 2 deflated, 3 sealed), then the rest. Sealed holds one of the other two. Plain is
MessagePack: [stored at, fresh for, stale for, cost, surface, events].
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable
from itertools import groupby

import msgspec

from gateway.cache.sealing import Sealer
from gateway.inference.events import (
    Delta,
    Event,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Relayed,
    TextDelta,
    ToolCallDelta,
    UsageReported,
    WholeAnswer,
)
from gateway.inference.request import Surface
from gateway.inference.usage import Usage

_PLAIN, _DEFLATED, _SEALED = b"\x01", b"\x02", b"\x03"
_DEFLATE_FROM = 4_096
"""Bytes; below, deflating costs more than it saves."""

Kept = Delta | Relayed | Finished | UsageReported | WholeAnswer


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One answer. Ages count from when it was stored."""

    stored_at: float
    """Unix time, in seconds."""
    fresh_s: float
    stale_s: float
    """How long it may be given after it is no longer fresh, in seconds."""
    cost_nanousd: int
    """What it cost when a deployment gave it."""
    surface: Surface
    """The schema that its bytes are in."""
    events: list[Kept]

    def age_s(self) -> float:
        return max(0.0, time.time() - self.stored_at)

    @property
    def usage(self) -> Usage:
        """What the answer used when a deployment gave it; nothing, where nobody said."""
        for event in self.events:
            if isinstance(event, UsageReported | WholeAnswer) and event.usage is not None:
                return event.usage
        return Usage()

    def left_s(self) -> float:
        """For how long it may still be given, fresh or stale; 0 or less: no longer."""
        return self.fresh_s + self.stale_s - self.age_s()


class EntryCodec:
    """Writes and reads entries of at most `most_bytes`; with a sealer, encrypted."""

    def __init__(self, most_bytes: int, sealer: Sealer | None) -> None:
        self._most_bytes = most_bytes
        self._sealer = sealer
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Entry)
        self._events_decoder = msgspec.msgpack.Decoder(list[Event])

    def encode(self, entry: Entry, name: str) -> bytes | None:
        """The entry under `name`; None: it is too large. Raises ValueError: its text is no Unicode."""
        plain = self._encoder.encode(entry)
        return None if len(plain) > self._most_bytes else self.close(plain, name)

    def decode(self, data: bytes, name: str) -> Entry:
        """The entry that was written under `name`. Raises ValueError or zlib.error: it is none."""
        return self._decoder.decode(self.open(data, name))

    def encode_events(self, events: list[Event], name: str) -> bytes:
        """Events on their way to another replica. Raises ValueError: text that is no Unicode."""
        return self.close(self._encoder.encode(events), name)

    def decode_events(self, data: bytes, name: str) -> list[Event]:
        """Events that another replica sent. Raises ValueError or zlib.error: they are none."""
        return self._events_decoder.decode(self.open(data, name))

    def close(self, plain: bytes, name: str) -> bytes:
        """Any bytes in their form for the store: deflated where that helps, sealed where there are keys."""
        data = _PLAIN + plain
        if len(plain) >= _DEFLATE_FROM and len(deflated := zlib.compress(plain, 1)) < len(plain):
            data = _DEFLATED + deflated
        return data if self._sealer is None else _SEALED + self._sealer.seal(data, name)

    def open(self, data: bytes, name: str) -> bytes:
        """What was closed under that name. Raises ValueError or zlib.error; larger than an answer: none of ours."""
        form, body = data[:1], data[1:]
        if form == _SEALED:
            if self._sealer is None:
                raise ValueError("sealed, and no key is set")
            opened = self._sealer.open(body, name)
            form, body = opened[:1], opened[1:]
        if form == _PLAIN:
            return body
        if form != _DEFLATED:
            raise ValueError(f"unknown form {form!r}")
        inflater = zlib.decompressobj()
        plain = inflater.decompress(body, self._most_bytes)
        if not inflater.eof:
            raise ValueError(f"cut, or larger than {self._most_bytes} bytes")
        return plain


def merged(events: Iterable[Event]) -> list[Kept]:
    """The final's events, with what came in many reads put together: a replay needs one write."""
    kept: list[Kept] = []
    for kind, group in groupby((event for event in events if isinstance(event, Kept)), key=type):
        if kind is Relayed:
            kept.append(_one_relayed([event for event in group if isinstance(event, Relayed)]))
        elif kind is TextDelta:
            kept.append(TextDelta("".join(event.text for event in group if isinstance(event, TextDelta))))
        else:
            kept += group
    return kept


def is_complete(kept: Iterable[Kept]) -> bool:
    """It says how it ended: a cut answer does not."""
    return any(
        isinstance(event, Finished | WholeAnswer) or (isinstance(event, Relayed) and event.finish_reason is not None)
        for event in kept
    )


def size_of(kept: Iterable[Kept]) -> int:
    """About the bytes that these events hold in memory."""
    size = 0
    for event in kept:
        match event:
            case Relayed() | UsageReported():
                size += len(event.data)
            case WholeAnswer():
                size += len(event.body)
            case TextDelta() | ReasoningDelta() | RefusalDelta():
                size += len(event.text) + 1
            case ToolCallDelta():
                size += len(event.arguments) + len(event.name) + 1
            case Finished():
                size += 1
    return size


def _one_relayed(run: list[Relayed]) -> Relayed:
    reasons = [event.finish_reason for event in run if event.finish_reason is not None]
    return Relayed(
        data=b"".join(event.data for event in run),
        text="".join(event.text for event in run),
        content=any(event.content for event in run),
        content_bytes=sum(event.content_bytes for event in run),
        finish_reason=reasons[0] if reasons else None,
    )
