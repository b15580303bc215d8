"""Backends that follow a script, and the plan around them: for tests of modes without sockets."""

import asyncio
import time
from dataclasses import dataclass, field

from gateway.backends.edges import Edges
from gateway.backends.extra_requests import ExtraRequests
from gateway.backends.health import Health
from gateway.backends.kept import Kept
from gateway.inference.deployment import FREE, Backend, Deployment, Price
from gateway.inference.events import Event
from gateway.inference.request import InferenceRequest, Message
from gateway.inference.usage import Usage
from gateway.modes.plan import Plan
from gateway.policy.compiled import Mode
from gateway.telemetry.record import RequestRecord


@dataclass
class Script:
    """What one backend does: events, pauses in seconds (numbers), things done to the call, at last perhaps an error."""

    steps: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    cancelled: int = 0

    async def answer(self, call, emit):
        self.calls.append(call)
        try:
            for step in self.steps:
                if isinstance(step, (int, float)):
                    await asyncio.sleep(step)
                elif isinstance(step, Exception):
                    raise step
                elif callable(step):
                    step(call)
                else:
                    await emit(step)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


class ScriptedBackends:
    """Stands where `Backends` stands: gives out the script of a backend's name."""

    def __init__(self, scripts: dict[str, Script]) -> None:
        self.scripts = scripts
        self.edges = Edges()
        self.estimate = lambda _edge, _found: None
        self.threshold = lambda _edge, _target_error: None
        self.kept = Kept(lambda: 0.0)
        self.scores: list = []
        """What `score` gives, or raises, one after the other."""
        self.scored: list = []
        self.health = Health(time.monotonic)
        self.extra = ExtraRequests()

    async def score(self, call, text: str) -> tuple[float, ...]:
        self.scored.append((call, text))
        call.record.connect_s = 0.0
        found = self.scores.pop(0)
        if isinstance(found, Exception):
            raise found
        call.record.usage = Usage(input_tokens=100, output_tokens=1)
        return found

    def client(self, backend: Backend) -> Script:
        return self.scripts[backend.name]


def deployment(name: str, *, edge: bool = False) -> Deployment:
    backend = Backend(name=name, type="edge" if edge else "openai", base_url="http://127.0.0.1:9/v1", region="local")
    price = FREE if edge else Price(input_nanousd=1_000_000, output_nanousd=2_000_000, cached_input_nanousd=500_000)
    return Deployment(id=f"{name}/m", backend=backend, model=f"{name}-model", price=price)


def plan(
    scripts: dict[str, Script], *, mode: Mode, finals: list[Deployment], draft=None, max_tokens=None, cascade=None
) -> Plan:
    loop = asyncio.get_running_loop()
    request = InferenceRequest(
        surface="chat", model="large", messages=(Message("user", "hello"),), fields={}, stream=True, prompt_bytes=40
    )
    return Plan(
        request=request,
        mode=mode,
        deployments=tuple(finals),
        draft=draft,
        draft_max_tokens=64,
        max_tokens=max_tokens,
        cascade=cascade,
        tenant="acme",
        traceparent=None,
        backends=ScriptedBackends(scripts),
        record=RequestRecord(request_id="req-1"),
        started=loop.time(),
        deadline=loop.time() + 60,
    )


class Seen:
    """Collects what comes up."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._came = asyncio.Event()

    async def __call__(self, event: Event) -> None:
        await asyncio.sleep(0)
        self.events.append(event)
        self._came.set()

    async def until(self, number: int) -> None:
        """Wait until so many events have come."""
        while len(self.events) < number:
            self._came.clear()
            await self._came.wait()

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]
