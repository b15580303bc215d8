"""Asks a backend as a mode would, and keeps what came back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gateway.backends.call import Call
from gateway.backends.openai import OpenAIBackend
from gateway.inference.deployment import FREE, Backend, Deployment, Secret, Timeouts
from gateway.inference.events import Event, Relayed, TextDelta
from gateway.telemetry.record import AttemptRecord
from gateway.wire.openai_chat import decode_request

TIMEOUTS = Timeouts(connect_s=1.0, first_token_s=2.0, idle_s=2.0, total_s=10.0)


def deployment_at(
    base_url: str, *, timeouts: Timeouts = TIMEOUTS, concurrency: int | None = None, key: str = "sk-upstream"
) -> Deployment:
    backend = Backend(
        name="cloud",
        type="openai",
        base_url=base_url,
        api_key=Secret(key) if key else None,
        region="eu",
        timeouts=timeouts,
        concurrency=concurrency,
    )
    return Deployment(id="cloud/scripted", backend=backend, model="scripted", price=FREE)


def call_for(deployment: Deployment, *, total_s: float = 30.0, max_tokens: int | None = 100, **body: Any) -> Call:
    body = {"model": "large", "stream": True, "messages": [{"role": "user", "content": "hello"}], **body}
    return Call(
        request=decode_request(json.dumps(body).encode()),
        deployment=deployment,
        max_tokens=max_tokens,
        tenant="acme",
        record=AttemptRecord(deployment=deployment.id),
        deadline=asyncio.get_running_loop().time() + total_s,
    )


class Taken:
    """The events that were emitted."""

    def __init__(self, *, delay_s: float = 0.0) -> None:
        self.events: list[Event] = []
        self.first = asyncio.Event()
        self._delay_s = delay_s

    async def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, TextDelta) or (isinstance(event, Relayed) and event.content):
            self.first.set()
        if self._delay_s:
            await asyncio.sleep(self._delay_s)

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Relayed))

    @property
    def data(self) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, Relayed))


async def ask(client: OpenAIBackend, call: Call) -> Taken:
    taken = Taken()
    await client.answer(call, taken)
    return taken
