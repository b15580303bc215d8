"""The frames between gateway workers and the edge process, version 3.

A frame is four bytes of length (big-endian, of what follows) and that many bytes of MessagePack: one map whose key
`type` names the struct below. A frame longer than `MAX_FRAME_BYTES` ends the connection: nobody means it.

    worker                                edge
    ------                                ----
    Hello(version) ---------------------> first frame; another version is refused with Failed(id=0)
           <----------------------------- Load       at once, and a few times a second while it changes
           <----------------------------- Status     at once, and whenever it changes
    Submit(id, …) ----------------------> id is the worker's choice, over 0, and unused on this connection
           <----------------------------- Token*     text may be empty: held back for a stop string or a character
           <----------------------------- Done(id) | Failed(id, code): exactly one, the last for this id
    Cancel(id) -------------------------> nothing is sent for this id after the edge has read it
    StatsAsked(id) ---------------------> Stats(id)
    Ping(id) ---------------------------> Pong(id, step_age_s): how long the running step has taken so far

A connection that ends cancels all that was submitted on it. No I/O happens in this file.
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import msgspec

from gateway.inference.events import TokenLogprob
from gateway.inference.request import Message, Sampling

VERSION = 3
MAX_FRAME_BYTES = 4 * 1024 * 1024
"""Far over any prompt that fits a context: 128,000 tokens of English are about 540 kB."""
_LENGTH_BYTES = 4

Priority = Literal["interactive", "background"]
State = Literal["off", "starting", "warm", "restarting", "failed"]


class BadFrame(Exception):
    """What came is not this protocol; the connection cannot be used any more."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The first frame of a worker."""

    version: int


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag="submit"):
    """A request for an answer. `ttft_within_s`: refuse it when its first token is predicted later than that."""

    id: int
    messages: tuple[Message, ...]
    max_tokens: int
    sampling: Sampling = Sampling()
    tenant: str = ""
    priority: Priority = "interactive"
    isolated: bool = False
    ttft_within_s: float | None = None
    json_schema: str = ""
    """What the answer is held to; empty: nothing."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """The answer is not wanted any more."""

    id: int


class StatsAsked(msgspec.Struct, frozen=True, tag="stats_asked"):
    """Asks for Stats."""

    id: int


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Asks for a sign of life."""

    id: int


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """What the process can do now; `reason` says why when it is not warm."""

    state: State
    reason: str = ""
    model: str = ""
    pid: int = 0
    n_ctx: int = 0
    fingerprint: str = ""
    """Stands for the model's content and format; empty until it is warm."""
    memory_bytes: int = 0
    """What it takes, all in all; 0 until it is warm."""


class Load(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """What a prediction of TTFT needs. `prefill_rate` in tokens a second, 0 when nothing was measured yet."""

    prefill_rate: float = 0.0
    queued_tokens: int = 0
    """Prompt tokens that are to be read before a new request's."""
    wait_s: float = 0.0
    """Until a place in the batch is free, where all are taken."""
    hit_share: float = 0.0
    """Share of recent prompt tokens that came from the prefix cache, 0..1."""


class Token(msgspec.Struct, frozen=True, tag="token", omit_defaults=True):
    """A piece of the answer: the tokens of one step. Log-probabilities are natural, entropies in nats, margins 0..1."""

    id: int
    text: str = ""
    logprobs: tuple[float, ...] = ()
    entropies: tuple[float, ...] = ()
    margins: tuple[float, ...] = ()
    told: tuple[TokenLogprob, ...] = ()
    """For a client that asked (`Sampling.top_logprobs`): of the tokens that `text` is made of."""


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The answer is complete. Times are seconds: waiting, reading the prompt, producing after the first token."""

    id: int
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """There is no answer. `code` is that of an EdgeError (`edge_unsuitable`, `edge_overloaded`, `edge_unavailable`)."""

    id: int
    code: str
    message: str


class Stats(msgspec.Struct, frozen=True, kw_only=True, tag="stats"):
    """Counters since the process started, and gauges of this moment. Seconds and bytes."""

    id: int = 0
    waiting: int = 0
    active: int = 0
    cells: int = 0
    """Size of the KV cache in tokens."""
    cells_used: int = 0
    cells_active: int = 0
    """Of these, how many hold tokens of running requests; the rest are kept prefixes."""
    kept_prefixes: int = 0
    requests: int = 0
    finished: int = 0
    cancelled: int = 0
    refused: int = 0
    steps: int = 0
    rows: int = 0
    """Tokens decoded in all steps: `rows / steps` is the mean batch size."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    prefill_tokens: int = 0
    prefill_s: float = 0.0
    decode_tokens: int = 0
    decode_s: float = 0.0
    loop_s: float = 0.0
    """Spent beside llama.cpp: planning, sampling, text, delivery."""
    queue_s: float = 0.0
    """Sum over all requests that began."""
    prefill_rate: float = 0.0
    rss_bytes: int = 0
    model_bytes: int = 0
    kv_bytes: int = 0


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """The sign of life. `step_age_s` is 0 while nothing is decoded."""

    id: int
    step_age_s: float


ToEdge = Hello | Submit | Cancel | StatsAsked | Ping
FromEdge = Status | Load | Token | Done | Failed | Stats | Pong
FrameT = TypeVar("FrameT")


class FrameWriter:
    """Frames to bytes."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()

    def encode(self, frame: ToEdge | FromEdge) -> bytes:
        """One frame, ready to be sent. Raises BadFrame when it is too long or holds what MessagePack cannot."""
        try:
            body = self._encoder.encode(frame)
        except (OverflowError, UnicodeEncodeError) as error:
            raise BadFrame(f"a frame of the edge protocol cannot be encoded: {error}") from error
        if len(body) > MAX_FRAME_BYTES:
            raise BadFrame(f"a frame of {len(body)} bytes is longer than the {MAX_FRAME_BYTES} that one may have")
        return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class FrameReader(Generic[FrameT]):
    """Bytes to frames, however they were split."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[FrameT]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    @classmethod
    def at_edge(cls) -> FrameReader[ToEdge]:
        """Reads what workers send."""
        return FrameReader[ToEdge](msgspec.msgpack.Decoder(ToEdge))

    @classmethod
    def at_worker(cls) -> FrameReader[FromEdge]:
        """Reads what the edge sends."""
        return FrameReader[FromEdge](msgspec.msgpack.Decoder(FromEdge))

    def feed(self, data: bytes) -> list[FrameT]:
        """The frames that `data` completed, in order. Raises BadFrame; the reader is then of no more use."""
        self._buffer += data
        frames: list[FrameT] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH_BYTES:
            body_start = start + _LENGTH_BYTES
            length = int.from_bytes(self._buffer[start:body_start], "big")
            if length > MAX_FRAME_BYTES:
                raise BadFrame(f"a frame announces {length} bytes, more than the {MAX_FRAME_BYTES} that one may have")
            if len(self._buffer) - body_start < length:
                break
            start = body_start + length
            frames.append(self._decode(bytes(self._buffer[body_start:start])))
        del self._buffer[:start]
        return frames

    def _decode(self, body: bytes) -> FrameT:
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadFrame(f"a frame is not one of the edge protocol: {error}") from error
