"""The OpenAPI 3.1 document, made from the table of routes and the types that bodies are read with.

    routes (URL, handler, `Operation`) -> paths; msgspec's JSON Schema of the types -> components

Nothing in it is written by hand but names and sentences: a route without an `Operation` cannot be added.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gateway.server.error_shape import error_shape
from gateway.server.operation import Parameter, Route

_REF = "#/components/schemas/{name}"
_VARIABLE = re.compile(r"\{(\w+)(?::[^}]*)?\}")
_STREAM = "text/event-stream"
_KEYS: list[dict[str, list[str]]] = [{"bearer": []}, {"x-api-key": []}]

_KEYED = {401: "No API key, or one that is not known here", 503: "The gateway cannot serve this now"}
_WITH_BODY = {400: "A field is wrong; `param` names it", 413: "The body is too large", 415: "Its coding is not known"}
_OF_MODELS = {
    403: "Constraints of the policy leave no deployment",
    429: "A budget is spent (`insufficient_quota`), or a rate exceeded (`rate_limit_exceeded`)",
    502: "The backend failed",
    504: "The backend was too slow",
}
_ALWAYS = {
    404: "There is no such object",
    405: "This URL does not take this method",
    500: "A fault of the gateway's own",
}

REQUEST_HEADERS = {
    "x-firstdraft-feature": "The part of the tenant's product that asks.",
    "x-firstdraft-labels": "Labels of the data, separated by commas.",
    "x-firstdraft-draft": "How the draft is wanted where the body does not say: `off`, `frames` or `reasoning`.",
}
_PATTERNS = {
    "x-firstdraft-feature": r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$",
    "x-firstdraft-labels": r"^([a-z0-9][a-z0-9_.-]{0,63}(,[a-z0-9][a-z0-9_.-]{0,63}){0,7})?$",
    "x-firstdraft-draft": "^(off|frames|reasoning)$",
}


def document(routes: Iterable[Route], *, title: str, version: str, description: str) -> bytes:
    """The document as JSON."""
    table = tuple(routes)
    types = {found for route in table for found in _types_of(route)}
    listed = sorted(types, key=str)
    schemas, components = msgspec.json.schema_components(listed, ref_template=_REF)
    known = dict(zip(listed, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(path_of(route), {})[route.method.lower()] = _operation(route, known)
    whole = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }
    return msgspec.json.encode(whole)


def path_of(route: Route) -> str:
    """The route's URL as OpenAPI writes it: variables without their patterns."""
    return _VARIABLE.sub(r"{\1}", route.path)


def _types_of(route: Route) -> set[Any]:
    operation, errors = route.operation, error_shape(route.path, {}).schema
    return {kind for kind in (operation.body, operation.answer, errors) if kind is not None}


def _operation(route: Route, known: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    operation = route.operation
    lines = (inspect.getdoc(route.handler) or "").split("\n\nRaises:")[0]
    summary, _, rest = lines.partition("\n\n")
    described: dict[str, Any] = {
        "operationId": _id_of(route),
        "tags": [operation.tag],
        "summary": " ".join(summary.split()),
        "responses": _responses(route, known),
    }
    if rest:
        described["description"] = " ".join(rest.split())
    if parameters := [*_variables(route), *_query(route), *_headers(route)]:
        described["parameters"] = parameters
    if operation.body is not None:
        content = {operation.body_media: {"schema": known[operation.body]}}
        described["requestBody"] = {"required": True, "content": content}
    if not operation.is_open:
        described["security"] = _KEYS
    return described


def _id_of(route: Route) -> str:
    words = [word for word in re.split(r"\W+", path_of(route)) if word]
    return "_".join((route.method.lower(), *words))


def _responses(route: Route, known: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    operation = route.operation
    content: dict[str, Any] = {operation.answer_media: {}}
    if operation.answer is not None:
        content[operation.answer_media]["schema"] = known[operation.answer]
    if operation.streams:
        content[_STREAM] = {}
    found: dict[str, Any] = {
        str(status): {"description": "The answer", "content": content} for status in operation.statuses
    }
    errors = dict(_ALWAYS)
    if not operation.is_open:
        errors |= _KEYED
    if operation.body is not None or operation.query:
        errors |= _WITH_BODY
    if operation.asks_model:
        errors |= _OF_MODELS
    schema = {"application/json": {"schema": known[error_shape(route.path, {}).schema]}}
    for status in sorted(errors):
        found[str(status)] = {"description": errors[status], "content": schema}
    return found


def _variables(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _VARIABLE.findall(route.path)
    ]


def _query(route: Route) -> list[dict[str, Any]]:
    given = {
        name: found if isinstance(found, Parameter) else Parameter(found, {"type": "string"})
        for name, found in route.operation.query.items()
    }
    return [
        {"name": name, "in": "query", "description": found.text, "schema": found.schema}
        for name, found in given.items()
    ]


def _headers(route: Route) -> list[dict[str, Any]]:
    if not route.operation.asks_model:
        return []
    return [
        {"name": name, "in": "header", "description": text, "schema": {"type": "string", "pattern": _PATTERNS[name]}}
        for name, text in REQUEST_HEADERS.items()
    ]
