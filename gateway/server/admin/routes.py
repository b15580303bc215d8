"""Every URL of the admin surface, with what its document says of it."""

from __future__ import annotations

from aiohttp import web

from gateway.server.admin import pages, state, tenants
from gateway.server.api import health, schema
from gateway.server.operation import Operation, Route
from gateway.wire import openai_schema as openai

_LIMIT = {"limit": "How many, 1 to 200. Default: 50.", "tenant": "Of this tenant alone."}

_PAGE = Operation(tag="Pages", answer_media="text/html", is_open=True)
_TENANTS, _TENANT = "/admin/v1/tenants", "/admin/v1/tenants/{tenant}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/admin/v1/status", state.status, Operation(tag="State", answer=state.Status)),
    Route("GET", "/admin/v1/policy", state.policy, Operation(tag="Policy", answer=state.PolicyState)),
    Route(
        "POST",
        "/admin/v1/policy/rollback",
        state.rollback,
        Operation(tag="Policy", body=state.RollbackRequest, answer=state.RolledBack),
    ),
    Route("GET", "/admin/v1/members", state.members, Operation(tag="State", answer=state.Workers)),
    Route("GET", "/admin/v1/deployments", state.deployments, Operation(tag="State", answer=state.Deployments)),
    Route("GET", "/admin/v1/requests", state.requests, Operation(tag="State", answer=state.Requests, query=_LIMIT)),
    Route("GET", _TENANTS, tenants.list_all, Operation(tag="Tenants", answer=tenants.TenantList)),
    Route(
        "POST",
        _TENANTS,
        tenants.create,
        Operation(tag="Tenants", body=tenants.NewTenant, answer=tenants.TenantShown, statuses=(201,)),
    ),
    Route("GET", _TENANT, tenants.get, Operation(tag="Tenants", answer=tenants.TenantDetail)),
    Route(
        "PATCH",
        _TENANT,
        tenants.change,
        Operation(tag="Tenants", body=tenants.ChangedTenant, answer=tenants.TenantShown),
    ),
    Route("DELETE", _TENANT, tenants.delete, Operation(tag="Tenants", answer=tenants.Done)),
    Route(
        "POST",
        f"{_TENANT}/keys",
        tenants.create_key,
        Operation(tag="Tenants", body=tenants.NewKey, answer=tenants.MadeKey, statuses=(201,)),
    ),
    Route("DELETE", _TENANT + "/keys/{key}", tenants.delete_key, Operation(tag="Tenants", answer=tenants.Done)),
    Route(
        "POST",
        "/admin/v1/playground",
        pages.ask,
        Operation(
            tag="Playground",
            body=openai.ChatRequest,
            answer=openai.ChatCompletion,
            streams=True,
            asks_model=True,
            query={"tenant": "Whom to ask as. Default: the tenant that needs no key."},
        ),
    ),
    Route("GET", "/admin/", pages.index, _PAGE),
    Route("GET", "/admin", pages.to_index, Operation(tag="Pages", is_open=True, statuses=(308,))),
    Route("GET", "/admin/static/{file}", pages.part, _PAGE),
    Route("GET", "/admin/v1/openapi.json", schema.show_admin, Operation(tag="State", answer=schema.Document)),
    Route("GET", "/admin/metrics", health.metrics, Operation(tag="State", answer_media="text/plain")),
)


def add_admin_routes(app: web.Application) -> None:
    """Bind the URLs to their handlers."""
    for route in ROUTES:
        app.router.add_route(route.method, route.path, route.handler)
    app[schema.ADMIN_DOCUMENT] = schema.Description(
        ROUTES,
        title="Firstdraft, admin surface",
        says="Unknown fields of bodies are refused, but for the playground's.",
    )
