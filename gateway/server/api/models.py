"""`GET /v1/models`: the names that a tenant may send, in OpenAI's shape or, for its clients, in Anthropic's."""

from __future__ import annotations

from aiohttp import web

from gateway.errors import UnknownModel
from gateway.routing.reachable import is_reachable, reachable_models
from gateway.server.error_shape import ANTHROPIC, error_shape
from gateway.server.keys import IDENTITY, POLICY, SERVICES
from gateway.wire import anthropic_models, openai_chat


async def list_all(http: web.Request) -> web.Response:
    """The public models that policy lets this tenant reach."""
    names = reachable_models(http[POLICY], http[IDENTITY].tenant)
    schema = anthropic_models if _is_anthropic(http) else openai_chat
    body = schema.encode_models(names, http.app[SERVICES].started_at)
    return web.Response(body=body, content_type="application/json")


async def get(http: web.Request) -> web.Response:
    """One public model.

    Raises:
        UnknownModel: this tenant can reach none of that name.
    """
    name = http.match_info["model"]
    if not is_reachable(http[POLICY], http[IDENTITY].tenant, name):
        message = f"There is no model {name[:100]!r}. GET /v1/models lists the models there are."
        raise UnknownModel(message, param="model")
    schema = anthropic_models if _is_anthropic(http) else openai_chat
    return web.Response(body=schema.encode_model(name, http.app[SERVICES].started_at), content_type="application/json")


def _is_anthropic(http: web.Request) -> bool:
    return error_shape(http.path, http.headers) is ANTHROPIC
