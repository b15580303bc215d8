"""`make demo`, without its installation: the README's first command."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

from tests.integration.process_fixture import alive, descendants

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
async def demo(tmp_path):
    """Runs the demo with its state in a folder of its own, and stops what it left."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FIRSTDRAFT_", "OPENAI_"))}
    environ |= {
        "STATE": str(tmp_path / "demo"),
        "PORT": str(free_port()),
        "PATH": f"{Path(sys.executable).parent}:{environ['PATH']}",
    }

    async def run(*arguments, **more):
        process = await asyncio.create_subprocess_exec(
            ROOT / "deploy/demo.sh",
            *arguments,
            env=environ | more,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 110)
        return process.returncode, out.decode()

    run.port, run.state = environ["PORT"], tmp_path / "demo"
    yield run
    await run("stop")


@pytest.mark.slow
@pytest.mark.edge
async def test_demo_from_question_to_cost(demo):
    """The demo shows draft, verdict, final, cost and budget, leaves the gateway running, and `stop` leaves nothing."""
    status, shown = await demo()
    assert status == 0, shown
    assert "a RECORDING" in shown
    order = [
        r"draft · smollm2-135m-instruct · first token after [\d,]+ ms",
        r"─ (confirmed|revised|replaced|dropped)",
        r"final · recorded-gpt-4-1106-preview · first token after [\d,]+ ms",
        r"3\s+bolts|3 bolts",
        r"cost +\$0\.0000\d+ \(\d+ tokens in, \d+ out, \d+ drafted\)",
        r"left +1,999,\d{3} of 2,000,000 tokens a day",
        r"curl -N http://127\.0\.0\.1:",
        r"client = OpenAI\(base_url=",
    ]
    places = [found.start() if (found := re.search(pattern, shown)) else -1 for pattern in order]
    assert -1 not in places, (order[places.index(-1)], shown)
    assert places == sorted(places)

    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://127.0.0.1:{demo.port}/readyz")).status_code == 200
    pids = [int((demo.state / f"{name}.pid").read_text()) for name in ("gateway", "backend")]
    family = [*pids, *descendants(pids[0])]
    assert len(family) >= 4, "gateway, recorded backend, store and edge"
    await demo("stop")
    assert [pid for pid in family if alive(pid)] == []


@pytest.mark.edge
async def test_demo_on_a_port_in_use(demo):
    """A gateway that cannot start ends the demo with the reason, and leaves nothing running."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        status, shown = await demo(PORT=str(other.getsockname()[1]))
    assert status == 1
    assert "cannot listen there" in shown
    assert not list(demo.state.glob("*.pid"))


async def test_stop_spares_others(demo):
    """A pid file whose number has passed on to another process stops nobody."""
    process = await asyncio.create_subprocess_exec("sleep", "30")
    demo.state.mkdir()
    (demo.state / "gateway.pid").write_text(str(process.pid))
    status, _ = await demo("stop")
    assert status == 0
    assert alive(process.pid)
    process.send_signal(signal.SIGKILL)
    await process.wait()
