import asyncio

import pytest

from gateway.cache import flight as module
from gateway.cache.flight import Continuation, Flight
from gateway.errors import BackendCut
from gateway.inference.events import (
    DraftText,
    Finished,
    ReasoningDelta,
    Relayed,
    TextDelta,
    UsageReported,
    WholeAnswer,
)
from gateway.inference.usage import Usage


def relayed(text, finish_reason=None, *, content_bytes=None):
    size = len(text.encode()) if content_bytes is None else content_bytes
    return Relayed(data=b"data: x\n\n", text=text, content=bool(text), content_bytes=size, finish_reason=finish_reason)


class Reader(list):
    """Collects events; stalls at its gate while that is closed."""

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def emit(self, event):
        await self.gate.wait()
        self.append(event)


async def test_everybody_reads_all_of_it():
    """A reader that comes late, and one that comes after the end, get every event in order."""
    flight, first, late, last = Flight(1_000), Reader(), Reader(), Reader()
    reading = asyncio.create_task(flight.read(first.emit))
    await flight.emit(TextDelta("a"))
    await asyncio.sleep(0)
    also = asyncio.create_task(flight.read(late.emit))
    await flight.emit(TextDelta("b"))
    flight.end()
    await asyncio.gather(reading, also, flight.read(last.emit))
    assert first == late == last == [TextDelta("a"), TextDelta("b")]
    assert flight.readers == 0


async def test_an_error_comes_after_what_came_before_it():
    """Readers get the events until then, and then the error."""
    flight, reader = Flight(1_000), Reader()
    await flight.emit(TextDelta("a"))
    flight.end(BackendCut("cut"))
    flight.end()
    with pytest.raises(BackendCut):
        await flight.read(reader.emit)
    assert reader == [TextDelta("a")]


async def test_a_reader_that_leaves_disturbs_nobody():
    """Cancelling one reader, or its failing, touches no other."""
    flight, stays = Flight(1_000), Reader()

    async def breaks(_event):
        raise ConnectionError

    readers = [asyncio.create_task(flight.read(emit)) for emit in (stays.emit, Reader().emit, breaks)]
    await asyncio.sleep(0)
    readers[1].cancel()
    await flight.emit(TextDelta("a"))
    await asyncio.wait(readers[1:])
    assert flight.readers == 1
    flight.end()
    await readers[0]
    assert stays == [TextDelta("a")]


async def test_the_fastest_reader_sets_the_pace(monkeypatch):
    """The source waits while nobody keeps up, and goes on with the first who does."""
    monkeypatch.setattr(module, "_WINDOW_BYTES", 1_000)
    flight, quick, slow = Flight(10_000), Reader(), Reader()
    for reader in (quick, slow):
        reader.gate.clear()
    readers = [asyncio.create_task(flight.read(reader.emit)) for reader in (quick, slow)]
    await asyncio.sleep(0)
    source = asyncio.create_task(flight.emit(TextDelta("x" * 2_000)))
    await asyncio.sleep(0.01)
    assert not source.done()
    quick.gate.set()
    await asyncio.wait_for(source, 1)
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)


async def test_memory_is_bounded_by_the_slowest_reader(monkeypatch):
    """Beyond the size of an answer that can be kept, the source waits for everybody."""
    monkeypatch.setattr(module, "_WINDOW_BYTES", 1_000)
    flight, quick, slow = Flight(1_500), Reader(), Reader()
    slow.gate.clear()
    readers = [asyncio.create_task(flight.read(reader.emit)) for reader in (quick, slow)]
    await asyncio.sleep(0)
    source = asyncio.create_task(flight.emit(TextDelta("x" * 2_000)))
    await asyncio.sleep(0.01)
    assert not source.done()
    readers[1].cancel()
    await asyncio.wait_for(source, 1)
    flight.end()
    await readers[0]


SHOWN = [relayed(""), relayed("The ca"), relayed("t sat")]
CONTINUED = {
    "in the same pieces": [relayed(""), relayed("The ca"), relayed("t sat"), relayed(" down"), relayed("", "stop")],
    "in one piece": [relayed("The cat sat down", "stop")],
    "in other pieces": [relayed("T"), relayed("he cat sa"), relayed("t do"), relayed("wn"), relayed("", "stop")],
    "by the edge": [TextDelta("The cat sat "), TextDelta("down"), Finished("stop")],
    "with a draft": [DraftText("A dog", "m"), relayed("The cat sat down"), relayed("", "stop")],
}


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, Relayed | TextDelta))


def finishes(events):
    reasons = [getattr(event, "finish_reason", None) or getattr(event, "reason", None) for event in events]
    return [reason for reason in reasons if reason]


@pytest.mark.parametrize("again", CONTINUED.values(), ids=CONTINUED)
async def test_a_source_that_repeats_itself_continues(again):
    """However the new source cuts its text, readers see each letter once, and one end."""
    flight = Flight(1_000)
    for event in SHOWN:
        await flight.emit(event)
    continuation = Continuation(flight)
    for event in [*again, UsageReported(Usage(input_tokens=1))]:
        await continuation.emit(event)
    assert flight.events[:3] == SHOWN
    assert text_of(flight.events) == "The cat sat down"
    assert finishes(flight.events) == ["stop"]
    assert flight.events[-1] == UsageReported(Usage(input_tokens=1))
    assert not any(isinstance(event, DraftText) for event in flight.events)


async def _continue(flight, events):
    continuation = Continuation(flight)
    for event in events:
        await continuation.emit(event)


OTHERS = {
    "another answer": [relayed("A dog")],
    "another answer after a while": [relayed("The cat "), relayed("ran")],
    "a shorter answer": [relayed("The cat", "stop")],
    "a shorter answer of the edge's": [TextDelta("The cat"), Finished("stop")],
    "a call": [relayed("", content_bytes=20)],
    "thoughts": [ReasoningDelta("Hm")],
    "nothing": [relayed("", "stop")],
}


@pytest.mark.parametrize("again", OTHERS.values(), ids=OTHERS)
async def test_never_half_of_one_answer_and_half_of_another(again):
    """A source that says something else ends the flight with an error, and adds nothing to what was shown."""
    flight = Flight(1_000)
    for event in SHOWN:
        await flight.emit(event)
    with pytest.raises(BackendCut):
        await _continue(flight, again)
    assert flight.events == SHOWN


async def test_what_is_more_than_text_is_not_continued():
    """A call or a thought that was shown cannot be compared piece by piece."""
    flight = Flight(1_000)
    await flight.emit(relayed("a", content_bytes=30))
    with pytest.raises(BackendCut):
        await Continuation(flight).emit(relayed("a"))


@pytest.mark.parametrize("shown", [[], [DraftText("d", "m")]])
async def test_a_flight_that_has_shown_nothing_simply_begins(shown):
    """Before the first piece of the final, a lost source is replaced without a trace."""
    flight = Flight(1_000)
    for event in shown:
        await flight.emit(event)
    answer = WholeAnswer(body=b"{}", text="", finish_reason="stop")
    await Continuation(flight).emit(answer)
    assert flight.events == [*shown, answer]
