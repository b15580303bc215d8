"""`GET /openapi.json`: this API, described for machines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web

from gateway.server.openapi import document
from gateway.server.operation import Route


class Document(msgspec.Struct):
    """An OpenAPI document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]


class Description:
    """The document of a table of routes, made when it is first asked for: the start does not wait for it."""

    def __init__(self, routes: Sequence[Route], *, title: str, says: str) -> None:
        self._routes = routes
        self._title = title
        self._says = says

    @cached_property
    def body(self) -> bytes:
        """The document. Takes some 50 ms the first time."""
        return document(self._routes, title=self._title, version=version("firstdraft"), description=self._says)


ADMIN_DOCUMENT: web.AppKey[Description] = web.AppKey("admin document", Description)
DOCUMENT: web.AppKey[Description] = web.AppKey("document", Description)


async def show(http: web.Request) -> web.Response:
    """What all URLs take and answer, as an OpenAPI 3.1 document."""
    return await _shown(http.app[DOCUMENT])


async def show_admin(http: web.Request) -> web.Response:
    """What the URLs of the admin surface take and answer, as an OpenAPI 3.1 document."""
    return await _shown(http.app[ADMIN_DOCUMENT])


async def _shown(description: Description) -> web.Response:
    body = await asyncio.to_thread(lambda: description.body)
    return web.Response(body=body, content_type="application/json")
