"""`GET /v1/models`: the names that clients may send."""

from __future__ import annotations

from aiohttp import web

from gateway.errors import UnknownModel
from gateway.server.keys import POLICY, SERVICES
from gateway.wire.openai_chat import encode_model, encode_models


async def list_all(http: web.Request) -> web.Response:
    """All public models, in OpenAI's list shape."""
    body = encode_models(http[POLICY].models, http.app[SERVICES].started_at)
    return web.Response(body=body, content_type="application/json")


async def get(http: web.Request) -> web.Response:
    """One public model.

    Raises:
        UnknownModel: there is none of that name.
    """
    name = http.match_info["model"]
    if name not in http[POLICY].models:
        message = f"There is no model {name[:100]!r}. GET /v1/models lists the models there are."
        raise UnknownModel(message, param="model")
    return web.Response(body=encode_model(name, http.app[SERVICES].started_at), content_type="application/json")
