"""What a hit of the prompt cache costs in CPU, from the bytes of the request to the bytes of the answer.

    python -m tests.benchmarks.hit

Runs the server's own handler over a transport that only counts, so that what is measured is this process alone. The
best of many short runs is shown: the machine may have other work.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from gateway.policy.store import PolicyStore
from gateway.server.app import build_app
from gateway.server.connections import Runner
from gateway.services import Machine, open_services
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey
from gateway.telemetry import log
from tests.upstream.scripted import ScriptedUpstream

_ROUNDS, _REQUESTS = 40, 500
_POLICY = """
backends:
  cloud: {{type: openai, base_url: "{url}", region: local}}
models:
  large: [{{backend: cloud, model: scripted, price: free}}]
routes:
  - {{name: all, mode: cloud_only, cache: {{ttl: 1h}}}}
tenants:
  guest: {{keyless: true}}
"""


class _Counting(asyncio.Transport):
    """Takes what is written and counts it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.writes: list[bytes] = []

    def write(self, data) -> None:
        self.writes.append(bytes(data))

    def writelines(self, data) -> None:
        self.write(b"".join(data))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass


def _request(*, stream: bool) -> bytes:
    messages = [
        {"role": "system", "content": "You are a helpful assistant that answers briefly."},
        {"role": "user", "content": "Why is a gateway in front of language models useful for a company? " * 2},
    ]
    fields = {"model": "large", "messages": messages, "max_tokens": 128, "temperature": 0, "stream": stream}
    body = json.dumps(fields).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:8080\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer placeholder\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _measure(server, data: bytes) -> float:
    """Microseconds of CPU for one request, the best round."""
    transport = _Counting()
    protocol = server()
    protocol.connection_made(transport)

    async def ask() -> None:
        before = len(transport.writes)
        protocol.data_received(data)
        while len(transport.writes) == before or protocol._messages or protocol._waiter is None:
            await asyncio.sleep(0)

    await ask()
    await asyncio.sleep(0.2)
    best = 1e9
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(_REQUESTS):
            await ask()
        best = min(best, (time.process_time() - began) / _REQUESTS * 1e6)
        assert b"x-firstdraft-cache: hit" in transport.writes[-1] or b"cache: hit" in b"".join(transport.writes[-6:])
        transport.writes.clear()
    protocol.connection_lost(None)
    return best


async def main(folder: Path) -> None:
    """Measure in a gateway whose state is in `folder`."""
    async with ScriptedUpstream() as upstream, EmbeddedValkey(folder / "state") as store:
        (folder / "policies").mkdir()
        (folder / "policies" / "policy.yaml").write_text(_POLICY.format(url=upstream.base_url))
        settings = Settings(policies=folder / "policies", state=folder / "state", edge=False)
        async with (
            PolicyStore(settings.policies, {}) as policy,
            open_services(settings, Machine(store_url=store.url, edge_socket=None), policy) as services,
        ):
            runner = Runner(build_app(services), access_log=None, handler_cancellation=True)
            await runner.setup()
            for kind in ("plain", "streamed"):
                cost = await _measure(runner.server, _request(stream=kind == "streamed"))
                print(f"{kind} hit: {cost:.1f} µs of CPU")
            await runner.cleanup()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, Path(os.devnull).open("wb", buffering=0) as nowhere:
        log.configure(level="info", format="json", stream=nowhere)
        asyncio.run(main(Path(name)))
