"""Writes the golden files anew: `python -m tests.unit.wire.golden.write`, then read the difference."""

from pathlib import Path

from gateway.wire.openai_chat import decode_request, encode_request
from tests.unit.wire.answers import golden
from tests.unit.wire.streams import FOLDER, STREAMS, encoded_stream
from tests.unit.wire.test_openai_chat_request import DEPLOYMENT

if __name__ == "__main__":
    here = Path(__file__).parent
    sent = encode_request(decode_request((here / "request.json").read_bytes()), DEPLOYMENT, max_tokens=64)
    (here / "request_sent.json").write_bytes(sent + b"\n")
    for name, data in golden().items():
        (FOLDER / name).write_bytes(data)
    for name in STREAMS:
        (FOLDER / f"{name}.sse").write_bytes(encoded_stream(name))
