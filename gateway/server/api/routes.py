"""Every URL of the gateway, on one screen, with what the document at `/openapi.json` says of it."""

from __future__ import annotations

from aiohttp import web

from gateway.server.api import (
    batches,
    chat,
    completions,
    embeddings,
    files,
    health,
    messages,
    models,
    responses,
    schema,
    usage,
    vector_stores,
)
from gateway.server.keys import SERVICES
from gateway.server.operation import Operation, Parameter, Route
from gateway.server.surface import Surface
from gateway.wire import anthropic_schema as anthropic
from gateway.wire import openai_files as filed
from gateway.wire import openai_schema as openai

SURFACES: tuple[Surface, ...] = (
    chat.CHAT,
    completions.COMPLETIONS,
    embeddings.EMBEDDINGS,
    messages.MESSAGES,
    responses.RESPONSES,
)

_CHAT = Operation(
    tag="OpenAI",
    body=openai.ChatRequest,
    answer=openai.ChatCompletion,
    statuses=(200, 202),
    streams=True,
    asks_model=True,
)
_FINAL = Operation(
    tag="OpenAI",
    answer=openai.ChatCompletion,
    statuses=(200, 202),
    asks_model=True,
    query={
        "wait": Parameter(
            "For how many seconds the connection is held until the final is there, 60 at most.",
            {"type": "integer", "minimum": 0, "maximum": 999_999},
        )
    },
)
_AGAIN = {
    "stream": Parameter("The events of a response that was made in the background with `stream`.", {"type": "boolean"}),
    "starting_after": Parameter(
        "With `stream`: the events after the one with this number.",
        {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    ),
}
_FORM = "multipart/form-data"
_DELETED = Operation(tag="OpenAI", answer=openai.Deleted)
_COMPLETION = Operation(
    tag="OpenAI", body=openai.CompletionRequest, answer=openai.Completion, streams=True, asks_model=True
)
_EMBEDDING = Operation(tag="OpenAI", body=openai.EmbeddingRequest, answer=openai.EmbeddingList, asks_model=True)
_MESSAGE = Operation(
    tag="Anthropic", body=anthropic.MessagesRequest, answer=anthropic.Message, streams=True, asks_model=True
)
_RESPONSE = Operation(tag="OpenAI", body=openai.ResponseRequest, answer=openai.Response, streams=True, asks_model=True)
_FILE = Operation(tag="OpenAI", answer=filed.FileObject)
_BATCH = Operation(tag="OpenAI", answer=filed.BatchObject)
_AFTER = {"after": "The id of the last object that is known: the page begins behind it."}
_FILES = Operation(
    tag="OpenAI",
    answer=filed.FilePage,
    query=_AFTER
    | {
        "limit": Parameter("How many, at most.", {"type": "integer", "minimum": 1, "maximum": 10_000}),
        "order": Parameter("By when they were made.", {"enum": ["asc", "desc"]}),
        "purpose": "Only files of this purpose.",
    },
)
_BATCHES = Operation(
    tag="OpenAI",
    answer=filed.BatchPage,
    query=_AFTER | {"limit": Parameter("How many, at most.", {"type": "integer", "minimum": 1, "maximum": 100})},
)
_SEARCH = Operation(tag="OpenAI", body=openai.SearchRequest, answer=openai.SearchPage, asks_model=True)
_REQUEST = {"request": "The id of the request, as in `x-request-id`. Default: the last one."}
_STATE = Operation(tag="Operation", answer=health.State, is_open=True)

ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/chat/completions", chat.create, _CHAT),
    Route("GET", "/v1/chat/completions/{id}", chat.get, _FINAL),
    Route("DELETE", "/v1/chat/completions/{id}", chat.delete, _DELETED),
    Route("POST", "/v1/completions", completions.create, _COMPLETION),
    Route("POST", "/v1/embeddings", embeddings.create, _EMBEDDING),
    Route("POST", "/v1/messages", messages.create, _MESSAGE),
    Route(
        "POST",
        "/v1/messages/count_tokens",
        messages.count_tokens,
        Operation(tag="Anthropic", body=anthropic.CountRequest, answer=anthropic.TokenCount),
    ),
    Route("POST", "/v1/responses", responses.create, _RESPONSE),
    Route("GET", "/v1/responses/{id}", responses.get, Operation(tag="OpenAI", answer=openai.Response, query=_AGAIN)),
    Route("POST", "/v1/responses/{id}/cancel", responses.cancel, Operation(tag="OpenAI", answer=openai.Response)),
    Route("DELETE", "/v1/responses/{id}", responses.delete, _DELETED),
    Route(
        "POST",
        "/v1/files",
        files.create,
        Operation(tag="OpenAI", body=filed.UploadForm, body_media=_FORM, answer=filed.FileObject),
    ),
    Route("GET", "/v1/files", files.list_all, _FILES),
    Route("GET", "/v1/files/{id}", files.get, _FILE),
    Route("GET", "/v1/files/{id}/content", files.content, Operation(tag="OpenAI", answer_media="application/jsonl")),
    Route("DELETE", "/v1/files/{id}", files.delete, _DELETED),
    Route(
        "POST",
        "/v1/batches",
        batches.create,
        Operation(tag="OpenAI", body=filed.BatchRequest, answer=filed.BatchObject),
    ),
    Route("GET", "/v1/batches", batches.list_all, _BATCHES),
    Route("GET", "/v1/batches/{id}", batches.get, _BATCH),
    Route("POST", "/v1/batches/{id}/cancel", batches.cancel, _BATCH),
    Route("POST", "/v1/vector_stores/{id}/search", vector_stores.search, _SEARCH),
    Route("GET", "/v1/models", models.list_all, Operation(tag="OpenAI", answer=openai.ModelList)),
    Route("GET", "/v1/models/{model:.+}", models.get, Operation(tag="OpenAI", answer=openai.Model)),
    Route(
        "GET", "/v1/firstdraft/usage", usage.show, Operation(tag="Firstdraft", answer=usage.TenantUsage, query=_REQUEST)
    ),
    Route("GET", "/healthz", health.alive, _STATE),
    Route(
        "GET",
        "/readyz",
        health.ready,
        Operation(tag="Operation", answer=health.State, statuses=(200, 503), is_open=True),
    ),
    Route("GET", "/metrics", health.metrics, Operation(tag="Operation", answer_media="text/plain", is_open=True)),
    Route("GET", "/openapi.json", schema.show, Operation(tag="Operation", answer=schema.Document, is_open=True)),
)


_METRICS = "/metrics"


def add_routes(app: web.Application) -> None:
    """Bind the URLs to their handlers, and have the document made of them."""
    for route in ROUTES:
        if route.path == _METRICS and app[SERVICES].settings.metrics_on == "admin":
            continue
        app.router.add_route(route.method, route.path, route.handler)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, route.handler)
    app[schema.DOCUMENT] = schema.Description(
        ROUTES, title="Firstdraft", says="Unknown fields of bodies are taken, too."
    )
