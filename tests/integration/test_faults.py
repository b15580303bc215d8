"""The fault table: every way in which a backend fails, in every mode, plain and streamed, on every surface.

Each client gets the right answer, another deployment's, or one clear error in its schema; afterwards nothing is left of
its request. The table in the README is what came of the cells here: when they differ, the test shows the new one.
"""

import asyncio
import collections
import functools
import hashlib
import socket
import ssl
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway import services
from gateway.policy.compiled import Mode
from gateway.store.client import Store
from tests.gateway_fixture import KEY
from tests.integration.fault_cells import Backends, WrongAnswerError, all_cells, ask, policy
from tests.integration.fault_table import table
from tests.upstream.faults import FAULTS
from tests.upstream.raw import RawUpstream

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(600)]
README = Path(__file__).parents[2] / "README.md"
FAULTS_AT_ONCE = 8
CELLS_AT_ONCE = 48
"""All servers and clients share one event loop here: more at once, and the store is late by that alone."""
SETTLED_WITHIN_S = 10.0


def _untrusted(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    ).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    clear = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, clear))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@asynccontextmanager
async def all_backends(http, folder):
    """The servers, and the places where there is none."""
    with socket.socket() as bound:  # bound, and nobody listens
        bound.bind(("127.0.0.1", 0))
        async with (
            RawUpstream() as raw,
            RawUpstream(greeting=("reset",)) as resets,
            RawUpstream(tls=_untrusted(folder), greeting=("close",)) as untrusted,
        ):
            nowhere = {
                "refused": f"http://127.0.0.1:{bound.getsockname()[1]}/v1",
                "reset": resets.base_url,
                "no tls": http.base_url.replace("http:", "https:"),
                "untrusted": untrusted.base_url,
            }
            yield Backends(http, raw, nowhere)


def tasks():
    """What runs in this process, by name; connections of HTTP servers that are kept for the next request aside."""
    running = (task.get_coro().__qualname__ for task in asyncio.all_tasks())
    return collections.Counter(name for name in running if name != "RequestHandler.start")


def connections_in_use(services):
    """Of the gateway's to all backends."""
    sessions = [
        session
        for client in services.backends._clients.values()
        for session in (client._connections._kept, client._connections._fresh)
        if session is not None
    ]
    return sum(len(session.connector._acquired) for session in sessions)


async def nothing_left(gateway, backends, before):
    """What is left of requests that are over: empty once everything is settled, closed and ended."""
    within = gateway.services
    end = time.monotonic() + SETTLED_WITHIN_S
    while True:
        stats = await within.edge.stats()
        left = {
            "requests": within.in_flight,
            "holds": within.ledger.open_holds,
            "requests at backends": backends.open,
            "connections to backends": connections_in_use(within),
            "at the edge": stats.active + stats.waiting,
            "tasks": dict(tasks() - before),
        }
        if not any(left.values()) or time.monotonic() > end:
            return {name: value for name, value in left.items() if value}
        await asyncio.sleep(0.02)


async def look(session, gateway, cell, places, found, wrong):
    """One cell's answer, or what is wrong with it."""
    try:
        async with places:
            found[cell] = await ask(session, gateway.base_url, cell)
            while found[cell].code == "edge_overloaded":  # this machine is busy, which is not what is tested
                await asyncio.sleep(0.5)
                found[cell] = await ask(session, gateway.base_url, cell)
    except (WrongAnswerError, aiohttp.ClientError, KeyError, ValueError, TypeError) as error:
        wrong.append(f"{cell}: {type(error).__name__}: {error}")


async def test_every_fault_in_every_mode(start_gateway, upstream, tmp_path, monkeypatch):
    """No fault of a backend becomes a wrong answer, a silent end, a hang, or anything that is left behind."""
    # All servers and clients share this process: that it is busy is not what is tested.
    monkeypatch.setattr(services, "Store", functools.partial(Store, timeout_s=10.0))
    cells, found, wrong = all_cells(), {}, []
    async with all_backends(upstream, tmp_path) as backends:
        text = policy(cells, backends, key_sha256=hashlib.sha256(KEY.encode()).hexdigest())
        gateway = await start_gateway(text)
        before = tasks()
        names, places = list(FAULTS), asyncio.Semaphore(CELLS_AT_ONCE)
        for first in range(0, len(names), FAULTS_AT_ONCE):
            group = set(names[first : first + FAULTS_AT_ONCE])
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(headers=gateway.auth, connector=connector) as session:
                of_group = [cell for cell in cells if cell.fault in group]
                await asyncio.gather(*(look(session, gateway, cell, places, found, wrong) for cell in of_group))
            left = await nothing_left(gateway, backends, before)
            if left:
                wrong.append(f"after {sorted(group)} this is left: {left}")
        wrong += [problem for cell, seen in found.items() for problem in _unlike(cell, seen, found, backends)]
    assert wrong == [], "\n".join(wrong)
    new = table(found)
    assert new in README.read_text(), f"the table in README.md has to be:\n{new}"


def _unlike(cell, seen, found, backends):
    """What is wrong with a cell beside all others."""
    calls = backends.calls(cell)
    if cell.mode is Mode.EDGE_ONLY and (str(seen) != "edge" or calls):
        yield f"{cell}: {seen} after {calls} calls, though only the edge may be asked"
    if calls > cell.script.calls:
        yield f"{cell}: {calls} calls to its backend"
    if cell.script.harmless and cell.mode is not Mode.EDGE_ONLY and str(seen) != "answered":
        yield f"{cell}: {seen}, though nothing is wrong with the answer"
    like = found.get(replace(cell, surface="chat"))
    if like is not None and (like.by, like.begun) != (seen.by, seen.begun):
        yield f"{cell}: {seen}, where chat has {like}"
