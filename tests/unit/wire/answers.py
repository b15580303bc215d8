"""Answers of every kind as every surface's clients see them; their bytes are kept in `golden/`."""

import json

from gateway.errors import BackendCut
from gateway.inference.events import (
    DraftCompleted,
    DraftJudged,
    DraftState,
    DraftText,
    Finished,
    Idle,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from gateway.inference.request import DraftWish
from gateway.inference.usage import Usage
from gateway.wire import anthropic_messages, openai_chat, openai_completions, openai_responses

MODEL = "smollm2-135m-instruct"
USAGE = UsageReported(Usage(input_tokens=9, output_tokens=4, cached_input_tokens=2, reasoning_tokens=1))
ASKED = [{"role": "user", "content": "x"}]
SURFACES = {
    "chat": (openai_chat, {"messages": ASKED, "stream_options": {"include_usage": True}}),
    "messages": (anthropic_messages, {"messages": ASKED, "max_tokens": 9, "thinking": {"type": "adaptive"}}),
    "responses": (openai_responses, {"input": "x", "metadata": {"a": "b"}}),
    "completions": (openai_completions, {"prompt": "x"}),
}
CALLS = [
    ToolCallDelta(index=0, id="c0", name="weather", arguments=""),
    ToolCallDelta(index=0, arguments='{"city":'),
    ToolCallDelta(index=0, arguments='"Zürich"}'),
    ToolCallDelta(index=1, id="c1", name="time"),
    ToolCallDelta(index=1, arguments="{}"),
]
DRAFT = [
    DraftText("The", MODEL),
    DraftCompleted(text="The", model=MODEL, tokens=1, ttft_s=0.0912345678),
]
VERDICT = DraftJudged(state=DraftState.REVISED, model=MODEL, text="The", similarity=0.5)
SITUATIONS = {
    "text": [TextDelta("The"), TextDelta(" answer"), Finished("stop"), USAGE],
    "thought": [ReasoningDelta("hm"), ReasoningDelta("", "sig"), TextDelta("So."), Finished("stop", "\n"), USAGE],
    "calls": [TextDelta("I look."), *CALLS, Finished("tool_calls"), USAGE],
    "refusal": [RefusalDelta("I will"), RefusalDelta(" not."), Finished("content_filter")],
    "length": [TextDelta("The"), Finished("length"), USAGE],
    "frames": [*DRAFT, TextDelta("The"), VERDICT, Finished("stop"), USAGE],
    "cut": [TextDelta("The"), Idle(), BackendCut("cloud/m ended its stream before the answer was complete")],
}


def request_of(surface, **more):
    schema, asked = SURFACES[surface]
    return schema.decode_request(json.dumps({"model": "large", **asked, **more}).encode())


def made(surface, kind, *, wish=DraftWish.FRAMES, **more):
    """A writer (`StreamEncoder` or `AnswerEncoder`) of a surface."""
    writer = getattr(SURFACES[surface][0], kind)
    return writer(request=request_of(surface, **more), response_id="id_7", created=1, model="large", wish=wish)


def streamed(surface, events):
    writer = made(surface, "StreamEncoder", stream=True)
    out = b""
    for event in events:
        if isinstance(event, Exception):
            return out + writer.error(event, "req-1")
        out += writer.encode(event)
    return out + writer.end()


def whole(surface, events):
    writer = made(surface, "AnswerEncoder")
    for event in events:
        writer.add(event)
    return writer.body()


def golden():
    """Name of the file -> its bytes."""
    files = {}
    for surface in SURFACES:
        for name, events in SITUATIONS.items():
            files[f"{surface}_{name}.sse"] = streamed(surface, events)
            if name != "cut":
                files[f"{surface}_{name}.json"] = whole(surface, events) + b"\n"
    return files
