"""Streams as clients see them, one for each situation; their bytes are kept in `golden/`."""

import json
from pathlib import Path

from gateway.errors import BackendCut
from gateway.inference.events import (
    DraftCompleted,
    DraftJudged,
    DraftState,
    DraftText,
    Finished,
    Idle,
    Relayed,
    TextDelta,
    UsageReported,
)
from gateway.inference.request import DraftWish
from gateway.inference.usage import Usage
from gateway.wire.openai_chat import StreamEncoder, decode_request

FOLDER = Path(__file__).parent / "golden"
MODEL = "smollm2-135m-instruct"
USAGE = Usage(input_tokens=9, output_tokens=4, cached_input_tokens=2, reasoning_tokens=1)


def request(**fields):
    body = {"model": "large", "messages": [{"role": "user", "content": "x"}], "stream": True, **fields}
    return decode_request(json.dumps(body).encode())


def encoder(wish=DraftWish.OFF, *, usage=False):
    asked = request(stream_options={"include_usage": True}) if usage else request()
    return StreamEncoder(request=asked, response_id="chatcmpl-7", created=1, model="large", wish=wish)


def chunk(delta, finish=None, *, id_="chatcmpl-theirs", **more):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": id_, "object": "chat.completion.chunk", "created": 2, "model": "m", "choices": [choice], **more}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


DRAFT = [
    DraftText("The", MODEL),
    DraftText(" answer", MODEL),
    DraftCompleted(text="The answer", model=MODEL, tokens=2, ttft_s=0.0912345678, confidence=0.75),
]
RELAYED = [
    Relayed(data=chunk({"role": "assistant", "content": ""})),
    Relayed(data=chunk({"content": "The answer"}), text="The answer", content=True, content_bytes=10),
]
FINISH = Relayed(data=chunk({}, "stop"), finish_reason="stop")
USAGE_CHUNK = b'data: {"id":"chatcmpl-theirs","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}\n\n'
REPORTED = UsageReported(USAGE, USAGE_CHUNK)
EDGE = [TextDelta("The"), TextDelta(" answer"), Finished("stop"), UsageReported(USAGE)]


def judged(state, similarity=None):
    return DraftJudged(state=state, model=MODEL, text="The answer", similarity=similarity)


STREAMS = {
    "relayed": (encoder, [*RELAYED, FINISH, REPORTED]),
    "relayed_with_usage": (lambda: encoder(usage=True), [*RELAYED, FINISH, REPORTED]),
    "edge": (encoder, EDGE),
    "edge_with_usage": (lambda: encoder(usage=True), EDGE),
    "frames_confirmed": (
        lambda: encoder(DraftWish.FRAMES, usage=True),
        [*DRAFT, *RELAYED, judged(DraftState.CONFIRMED, 1.0), FINISH, REPORTED],
    ),
    "frames_dropped_after_content": (
        lambda: encoder(DraftWish.FRAMES),
        [*RELAYED, judged(DraftState.DROPPED), FINISH, REPORTED],
    ),
    "frames_promoted": (
        lambda: encoder(DraftWish.FRAMES, usage=True),
        [*DRAFT, judged(DraftState.PROMOTED), *EDGE],
    ),
    "reasoning": (
        lambda: encoder(DraftWish.REASONING),
        [*DRAFT, *RELAYED, judged(DraftState.REVISED, 0.8), FINISH, REPORTED],
    ),
    "off": (encoder, [*DRAFT, *RELAYED, judged(DraftState.REVISED, 0.8), FINISH, REPORTED]),
    "keepalive_then_error": (
        lambda: encoder(DraftWish.FRAMES),
        [DRAFT[0], Idle(), RELAYED[0], BackendCut("cloud/m ended its stream before the answer was complete")],
    ),
}


def encoded_stream(name):
    made, events = STREAMS[name]
    writer = made()
    out = b""
    for event in events:
        if isinstance(event, Exception):
            return out + writer.error(event, "req-1")
        out += writer.encode(event)
    return out + writer.end()
