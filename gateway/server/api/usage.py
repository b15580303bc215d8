"""`GET /v1/firstdraft/usage`: what is left of a tenant's budgets, and what a request of its own was."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from aiohttp import web

from gateway.budgets.claim import Left
from gateway.errors import NotFound
from gateway.server.keys import IDENTITY, POLICY, SERVICES

_NANOUSD = 1_000_000_000


class Budget(msgspec.Struct):
    """One budget of a tenant, in its unit."""

    unit: Literal["tokens", "usd"]
    limit: float
    left: float
    per: str
    feature: str | None
    resets_in_s: int


class TenantUsage(msgspec.Struct):
    """What a tenant has left, and what one of its requests was."""

    tenant: str
    budgets: list[Budget]
    last: dict[str, Any] | None


async def show(http: web.Request) -> web.Response:
    """Budgets, and the tenant's last request on this worker, or the one that `?request=` names.

    Raises:
        NotFound: no request of that id of this tenant is remembered (the newest 1,000 of a worker are).
    """
    services, tenant = http.app[SERVICES], http[IDENTITY].tenant.name
    limits = http[POLICY].tenants[tenant].limits
    wanted = http.query.get("request")
    record = services.recent.get(tenant, wanted)
    if record is None and wanted is not None:
        message = f"No request {wanted[:60]!r} of this tenant is remembered by this worker."
        raise NotFound(message, param="request")
    body = {
        "tenant": tenant,
        "budgets": [budget_of(left) for left in await services.ledger.left(tenant, limits)],
        "last": None if record is None else {**record.told_to_tenant(), "cost_usd": record.cost_nanousd / _NANOUSD},
    }
    return web.json_response(body)


def budget_of(left: Left) -> dict[str, Any]:
    """What is left of a budget, in its unit."""
    limit = left.limit
    scale, unit = (_NANOUSD, "usd") if limit.unit == "nanousd" else (1, "tokens")
    return {
        "unit": unit,
        "limit": limit.amount / scale if scale > 1 else limit.amount,
        "left": left.left / scale if scale > 1 else left.left,
        "per": limit.per,
        "feature": limit.feature,
        "resets_in_s": round(left.resets_in_s),
    }
