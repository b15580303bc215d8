import msgspec
import pytest

from gateway.edge.protocol import (
    MAX_FRAME_BYTES,
    BadFrame,
    Cancel,
    Done,
    FrameReader,
    FrameWriter,
    Hello,
    Load,
    Pong,
    Stats,
    Status,
    Submit,
    Token,
)
from gateway.inference.request import Message, Sampling

TO_EDGE = [
    Hello(1),
    Submit(
        id=1, messages=(Message("user", "héllo"),), max_tokens=3, sampling=Sampling(stop=("a",)), priority="background"
    ),
    Cancel(1),
]
FROM_EDGE = [
    Status(state="warm", model="m", pid=3, n_ctx=10),
    Load(prefill_rate=3.5),
    Token(1, "😀", (-0.5,), (1.25,)),
    Token(2),
    Done(
        id=1,
        finish_reason="stop",
        prompt_tokens=1,
        cached_tokens=0,
        completion_tokens=2,
        queue_s=0.0,
        prefill_s=0.1,
        decode_s=0.2,
    ),
    Stats(id=4, steps=7),
    Pong(5, 0.0),
]


def encoded(frames) -> bytes:
    return b"".join(FrameWriter().encode(frame) for frame in frames)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_frames_survive_any_split(size):
    """However the bytes are cut, the same frames come out, in order."""
    for frames, reader in ((TO_EDGE, FrameReader.at_edge()), (FROM_EDGE, FrameReader.at_worker())):
        data = encoded(frames)
        read = [frame for start in range(0, len(data), size) for frame in reader.feed(data[start : start + size])]
        assert read == frames


def test_a_frame_that_announces_too_much_is_refused_before_it_comes():
    """The length alone is enough to refuse a frame: nothing is buffered for it."""
    with pytest.raises(BadFrame, match=str(MAX_FRAME_BYTES)):
        FrameReader.at_edge().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))


def test_a_frame_too_long_to_be_read_is_not_written():
    """What the other side would refuse is refused before it is sent."""
    with pytest.raises(BadFrame, match="longer"):
        FrameWriter().encode(Submit(id=1, messages=(Message("user", "x" * (MAX_FRAME_BYTES + 1)),), max_tokens=1))


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_text_that_is_no_unicode_is_not_written(text):
    """Half a surrogate pair cannot be sent, and is said so in the protocol's own error."""
    with pytest.raises(BadFrame):
        FrameWriter().encode(Submit(id=1, messages=(Message("user", text),), max_tokens=1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\xff",
        msgspec.msgpack.encode({"type": "nonsense"}),
        msgspec.msgpack.encode({"type": "cancel", "id": "one"}),
        msgspec.msgpack.encode({"type": "submit", "id": 1}),
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode({"type": "hello", "version": 1}) + b"x",
        b"\x82\xa4type\xa5hello\xa7version\xa1\xff",
        b"\x91" * 100_000,
    ],
)
def test_what_is_not_the_protocol_is_refused(body):
    """Unknown frames, wrong types, bad UTF-8, cut or too deep MessagePack: all one error."""
    with pytest.raises(BadFrame):
        FrameReader.at_edge().feed(len(body).to_bytes(4, "big") + body)


def test_a_worker_cannot_send_what_only_the_edge_sends():
    """Each side reads only the other's frames."""
    with pytest.raises(BadFrame):
        FrameReader.at_edge().feed(encoded([Pong(1, 0.0)]))
