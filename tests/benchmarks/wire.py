"""What the codecs and the backend's client cost: `python -m tests.benchmarks.wire`.

Microseconds of CPU, the best of several rounds: of this process alone for the codecs; for the client with the upstream
in a process of its own, as in service.
"""

import asyncio
import json
import sys
import time

from gateway.backends.openai import OpenAIBackend
from gateway.inference.request import DraftWish
from gateway.wire.openai_chat import StreamDecoder, StreamEncoder, decode_request, encode_request
from tests.unit.backends.asking import call_for, deployment_at
from tests.unit.wire.test_openai_chat_request import DEPLOYMENT

ROUNDS = 7
CHUNK = (
    b'data: {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4.1",'
    b'"choices":[{"index":0,"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
)


def body(*, compact: bool) -> bytes:
    """A request of about 2 kB."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant. " * 20},
        {"role": "user", "content": "Hello world, how are you? " * 48},
        {"role": "assistant", "content": "Fine."},
        {"role": "user", "content": "More, please."},
    ]
    value = {"model": "large", "messages": messages, "stream": True, "temperature": 0.2, "user": "u", "x": {"y": [1]}}
    return json.dumps(value, separators=(",", ":") if compact else None).encode()


def measured(name: str, do, times: int = 20_000) -> None:
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(times):
            do()
        best = min(best, time.process_time() - began)
    print(f"{name:60} {best / times * 1e6:8.2f} µs")


def codecs() -> None:
    for compact in (True, False):
        data = body(compact=compact)
        request = decode_request(data)
        kind = "compact" if compact else "spaced"
        measured(f"decode_request, {len(data)} bytes, {kind}", lambda data=data: decode_request(data))
        measured("encode_request", lambda request=request: encode_request(request, DEPLOYMENT, max_tokens=100))
    for name, data, wish in (
        ("one chunk a read", CHUNK, DraftWish.OFF),
        ("four chunks a read", CHUNK * 4, DraftWish.OFF),
        ("one chunk a read, id replaced after a draft", CHUNK, DraftWish.FRAMES),
        ("one chunk a read, CR LF", CHUNK.replace(b"\n", b"\r\n"), DraftWish.OFF),
    ):
        decoder = StreamDecoder(deployment="d")
        encoder = StreamEncoder(request=request, response_id="chatcmpl-1", created=1, model="large", wish=wish)
        encoder._id_shown = wish is DraftWish.FRAMES

        def relay(decoder=decoder, encoder=encoder, data=data) -> None:
            for event in decoder.feed(data):
                encoder.encode(event)

        measured(f"relay, {name}", relay)


async def client() -> None:
    """The whole client against the scripted upstream."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.upstream.scripted", stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    deployment = deployment_at((await server.stdout.readline()).decode().strip())
    backend = OpenAIBackend(deployment.backend)

    async def taken(event) -> None:
        pass

    async def cpu(times: int, **fields) -> float:
        best = float("inf")
        for _ in range(4):
            began = time.process_time()
            for _ in range(times):
                await backend.answer(call_for(deployment, **fields), taken)
            best = min(best, time.process_time() - began)
        return best / times * 1e6

    plain = await cpu(500, stream=False)
    short, long = [
        await cpu(10, messages=[{"role": "user", "content": json.dumps({"script": {"chunks": chunks}})}])
        for chunks in (0, 2_000)
    ]
    print(f"{'client, a plain request':60} {plain:8.1f} µs")
    print(f"{'client, a stream without content':60} {short:8.1f} µs")
    print(f"{'client, a chunk of a stream':60} {(long - short) / 2_000:8.2f} µs")
    await backend.close()
    server.terminate()
    await server.wait()


if __name__ == "__main__":
    codecs()
    asyncio.run(client())
