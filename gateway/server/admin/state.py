"""What the gateway is doing: status, policy, members, deployments, recent requests. Reading, but for the rollback."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version
from typing import Any

import msgspec
import structlog
from aiohttp import web

from gateway.errors import InvalidRequest, NotFound, StoreUnavailable
from gateway.policy.history import PolicyHistory
from gateway.server.body import read_body
from gateway.server.keys import PROXIES, SERVICES
from gateway.wire.fields import typed
from gateway.wire.json_body import read_object

_MOST_REQUESTS = 200
_ORDINARY_TOKENS = 500
"""Of a prompt: predictions depend on its length."""
_NANOUSD = 1_000_000_000


class Status(msgspec.Struct):
    """This worker, and the parts that it works with."""

    version: str
    started_at: int
    worker: str
    status: str
    in_flight: int
    parts: dict[str, Any]


class Kept(msgspec.Struct):
    """A version that was in force; `at` in UTC, as in 20261123T024350."""

    version: str
    at: str


class PolicyState(msgspec.Struct):
    """The policy in force here, what was refused, and what it can go back to."""

    version: str
    refused: str | None
    warnings: list[str]
    counts: dict[str, int]
    history: list[Kept]


class RollbackRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which version to go back to; without one, the last good one before this."""

    to: str | None = None


class RolledBack(msgspec.Struct):
    """The folder is as it was; the gateway takes it up within a second or two."""

    restored: str
    in_force_since: str


class Worker(msgspec.Struct):
    """One worker of one replica on the same store."""

    name: str
    version: str
    refused: bool
    seen_s_ago: float


class Workers(msgspec.Struct):
    """All of them."""

    members: list[Worker]


class DeploymentState(msgspec.Struct):
    """A deployment, where it is, and how fast this worker expects it to be."""

    id: str
    backend: str
    type: str
    region: str
    compliance: list[str]
    models: list[str]
    healthy: bool
    trouble: dict[str, Any] | None
    first_token_s: float | None
    per_token_s: float | None
    waiting_tokens: int


class Deployments(msgspec.Struct):
    """All of the policy."""

    deployments: list[DeploymentState]


class Requests(msgspec.Struct):
    """The newest requests of this worker, the newest first: what the log says of each."""

    requests: list[dict[str, Any]]


def answer(value: msgspec.Struct, status: int = 200) -> web.Response:
    """A value as the body of an answer that nobody may keep."""
    body = msgspec.json.encode(value)
    return web.Response(
        body=body, status=status, content_type="application/json", headers={"cache-control": "no-store"}
    )


async def status(http: web.Request) -> web.Response:
    """How this worker and its parts are."""
    services = http.app[SERVICES]
    readiness = await services.readiness()
    return answer(
        Status(
            version=version("firstdraft"),
            started_at=services.started_at,
            worker=services.members.name,
            status="ready" if readiness.ready else "not ready",
            in_flight=services.in_flight,
            parts=readiness.parts,
        )
    )


async def policy(http: web.Request) -> web.Response:
    """The policy in force, why a newer one was refused, and the versions before it."""
    services = http.app[SERVICES]
    current = services.policy.current
    kept = await asyncio.to_thread(PolicyHistory(services.settings.state).kept)
    return answer(
        PolicyState(
            version=current.version,
            refused=services.policy.refused,
            warnings=[str(warning) for warning in current.warnings],
            counts=current.counts,
            history=[Kept(one.version, one.at) for one in kept],
        )
    )


async def rollback(http: web.Request) -> web.Response:
    """Write a version that was in force back to the policy folder, as `firstdraft policy rollback` does.

    Raises:
        NotFound: that version is not kept, or no other is.
        InvalidRequest: the folder cannot be written.
    """
    services = http.app[SERVICES]
    body = await read_body(http)
    wanted = typed(read_object(body), RollbackRequest).to if body.strip() else None
    history, directory = PolicyHistory(services.settings.state), services.settings.policies
    kept = await asyncio.to_thread(history.choose, directory, wanted)
    if kept is None:
        raise NotFound("No such version is kept: a gateway keeps each that comes into force.", param="to")
    try:
        await asyncio.to_thread(history.restore, kept, directory)
    except OSError as problem:
        message = f"The policy folder cannot be written: {problem.strerror or problem}. Roll back where it comes from."
        raise InvalidRequest(message, code="policy_folder_read_only") from None
    log_change(http, "policy_rollback", version=kept.version)
    return answer(RolledBack(kept.version, kept.at))


async def members(http: web.Request) -> web.Response:
    """Every worker of every replica on the same store, with the policy that it serves under."""
    try:
        found = await http.app[SERVICES].members.all()
    except StoreUnavailable:
        found = []
    now = time.time()
    return answer(Workers([Worker(one.name, one.version, one.refused, round(now - one.seen, 1)) for one in found]))


async def deployments(http: web.Request) -> web.Response:
    """Every deployment of the policy: where it is, how healthy, and how fast as this worker sees it."""
    services = http.app[SERVICES]
    current = services.policy.current
    health = services.backends.health
    health.know(current.deployments)
    failing, edges = health.report(), services.backends.edges
    predictions = services.pipeline.observed.predictions(_ORDINARY_TOKENS)
    models: dict[str, list[str]] = {}
    for name, found in current.models.items():
        for deployment in found:
            models.setdefault(deployment.id, []).append(name)
    listed = []
    for name, deployment in sorted(current.deployments.items()):
        backend, predicted = deployment.backend, predictions.get(name)
        trouble = edges.trouble(backend) if deployment.is_edge else failing.get(name)
        listed.append(
            DeploymentState(
                id=name,
                backend=backend.name,
                type=backend.type,
                region=backend.region,
                compliance=sorted(backend.compliance),
                models=models.get(name, []),
                healthy=trouble is None,
                trouble=trouble,
                first_token_s=None if predicted is None else predicted.first_token_s,
                per_token_s=None if predicted is None else predicted.per_token_s,
                waiting_tokens=0 if predicted is None else predicted.in_flight_tokens,
            )
        )
    return answer(Deployments(listed))


async def requests(http: web.Request) -> web.Response:
    """The newest requests of this worker: decision, times, tokens, cost. Never a prompt or an answer.

    Raises:
        InvalidRequest: `limit` is no number from 1 to 200.
    """
    text = http.query.get("limit", "50")
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    if not 1 <= limit <= _MOST_REQUESTS:
        raise InvalidRequest(f"'limit' is a number from 1 to {_MOST_REQUESTS}", param="limit")
    records = http.app[SERVICES].recent.newest(limit, tenant=http.query.get("tenant"))
    return answer(Requests([{**record.fields(), "cost_usd": record.cost_nanousd / _NANOUSD} for record in records]))


def log_change(http: web.Request, what: str, **facts: object) -> None:
    """One line in the log for whatever is changed through the admin surface."""
    client = http.app[PROXIES].client(http.remote, http.headers)
    structlog.get_logger().info("admin_change", change=what, client=client, **facts)
