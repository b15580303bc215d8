"""The connection itself, against a server that says what the test says."""

import asyncio
import time

import hiredis
import pytest

from gateway.errors import StoreUnavailable
from gateway.store import line as lines
from gateway.store.line import Line, pack


class Wire(asyncio.Transport):
    """What was written, in pieces; `aborted` when the line gave it up."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
async def wire():
    return Wire()


@pytest.fixture
async def lost():
    return []


@pytest.fixture
async def line(wire, lost):
    made = Line(0.05, lambda _, reason: lost.append(reason), "test")
    made.connection_made(wire)
    return made


async def until(true):
    """Wait for something, a second at most."""
    end = time.monotonic() + 1
    while not true() and time.monotonic() < end:
        await asyncio.sleep(0.005)
    assert true()


async def test_one_write_for_one_turn(line, wire):
    """What is asked in one turn of the loop is written in one piece, and answered in order."""
    futures = [line.ask(pack("GET", key)) for key in ("a", "b")]
    both = line.ask_all(pack("INCR", "c") * 2, 2)
    await asyncio.sleep(0)
    assert wire.written == [pack("GET", "a") + pack("GET", "b") + pack("INCR", "c") * 2]
    for piece in (b"$1\r", b"\nx\r\n$-1\r\n:1", b"\r\n-ERR no\r\n"):
        line.data_received(piece)
    assert [future.result() for future in futures] == [b"x", None]
    assert both.result()[0] == 1
    assert isinstance(both.result()[1], hiredis.ReplyError)
    assert not line.busy


async def test_caller_that_left(line):
    """The answer to somebody who left is nobody else's."""
    gone, stays = line.ask(pack("GET", "a")), line.ask(pack("GET", "b"))
    gone.cancel()
    line.data_received(b"$1\r\na\r\n$1\r\nb\r\n")
    assert stays.result() == b"b"


async def test_time_limit(line, wire, lost):
    """The oldest question's limit ends the line, and everybody's waiting with it; no other timer runs."""
    early = line.ask(pack("GET", "a"))
    await asyncio.sleep(0.03)
    line.data_received(b"$1\r\na\r\n")
    late = [line.ask(pack("GET", "b")) for _ in range(3)]
    assert early.result() == b"a"
    await asyncio.sleep(0.03)
    assert not lost
    await until(lambda: lost)
    assert wire.aborted
    assert lost == ["it did not answer within 0.05 s"]
    for future in late:
        with pytest.raises(StoreUnavailable, match="the store at test"):
            future.result()
    with pytest.raises(StoreUnavailable):
        line.ask(pack("GET", "c"))


async def test_time_in_which_the_gateway_stood_still_is_not_the_servers(line, lost):
    """A question that could not be sent for longer than the limit, or whose answer could not be read, has its time."""
    waits = line.ask(pack("GET", "a"))
    time.sleep(0.2)  # noqa: ASYNC251 what is tested: before it is sent
    await asyncio.sleep(0.02)
    assert not lost
    time.sleep(0.2)  # noqa: ASYNC251 and while the server answers
    await asyncio.sleep(0.02)
    assert not lost
    line.data_received(b"$1\r\na\r\n")
    assert await waits == b"a"


async def test_a_timer_that_rings_before_a_question_is_sent(line, lost):
    """The timer of a question that was answered meanwhile: the next one has its own time, and no more than that."""
    answered = line.ask(pack("GET", "a"))
    await asyncio.sleep(0.04)
    line.data_received(b"$1\r\na\r\n")
    assert await answered == b"a"
    waits = line.ask(pack("GET", "b"))
    line._check_time()
    await asyncio.sleep(0.02)
    assert not lost
    await until(lambda: lost)
    with pytest.raises(StoreUnavailable):
        await waits


async def test_a_server_that_stays_silent_is_given_up_for_all_that(line, lost):
    """More time is given once: a gateway that stands still again and again still sees that its store is gone."""
    waits = line.ask(pack("GET", "a"))
    for _ in range(6):
        await asyncio.sleep(0)
        time.sleep(0.08)  # noqa: ASYNC251 what is tested
    assert lost
    with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.05 s"):
        await waits


@pytest.mark.parametrize("said", [b"hello\r\n", b":1\r\n:2\r\n", b"*-5\r\n"])
async def test_server_that_says_something_else(line, wire, lost, said):
    """Words that are no answer end the line: nobody gets what was meant for another."""
    waits = line.ask(pack("GET", "a"))
    line.data_received(said)
    assert wire.aborted
    assert len(lost) == 1
    waits.exception()


async def test_too_many_wait(line, monkeypatch):
    """More questions than can wait are refused before they are sent."""
    monkeypatch.setattr(lines, "MOST_WAITING", 2)
    waits = line.ask_all(pack("GET", "a") * 2, 2)
    with pytest.raises(StoreUnavailable, match="wait for the store already"):
        line.ask(pack("GET", "b"))
    waits.cancel()


async def test_closed_line(line, lost):
    """Its owner is not told what it did itself; whoever waits is."""
    waits = line.ask(pack("GET", "a"))
    line.close()
    assert not lost
    with pytest.raises(StoreUnavailable):
        await waits


def test_words_that_are_no_unicode():
    """Names that clients send are sent on, whatever is in them."""
    assert b"\xed\xb3\xbf" in pack("GET", "\udcff")
