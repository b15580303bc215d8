"""Every URL of the gateway, on one screen."""

from __future__ import annotations

from aiohttp import web

from gateway.server.api import chat, completions, embeddings, health, messages, models, responses, usage, vector_stores
from gateway.server.surface import Surface

SURFACES: tuple[Surface, ...] = (
    chat.CHAT,
    completions.COMPLETIONS,
    embeddings.EMBEDDINGS,
    messages.MESSAGES,
    responses.RESPONSES,
)


def add_routes(app: web.Application) -> None:
    """Bind the URLs to their handlers."""
    app.router.add_post("/v1/chat/completions", chat.create)
    app.router.add_post("/v1/completions", completions.create)
    app.router.add_post("/v1/embeddings", embeddings.create)
    app.router.add_post("/v1/messages", messages.create)
    app.router.add_post("/v1/messages/count_tokens", messages.count_tokens)
    app.router.add_post("/v1/responses", responses.create)
    app.router.add_get("/v1/responses/{id}", responses.get)
    app.router.add_delete("/v1/responses/{id}", responses.delete)
    app.router.add_post("/v1/vector_stores/{id}/search", vector_stores.search)
    app.router.add_get("/v1/models", models.list_all)
    app.router.add_get("/v1/models/{model:.+}", models.get)
    app.router.add_get("/v1/firstdraft/usage", usage.show)
    app.router.add_get("/healthz", health.alive)
    app.router.add_get("/readyz", health.ready)
    app.router.add_get("/metrics", health.metrics)
