"""What the document at `/openapi.json` says of one URL. It stands beside the handler; `openapi` makes the document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one URL. What it does, in a sentence, is the first line of its handler's docstring."""

    tag: str
    body: Any = None
    """The type of its JSON body: a Struct, whose fields and limits are the schema. None: it takes none."""
    body_media: str = "application/json"
    answer: Any = None
    """The type of its JSON answer; None: it has no schema, `answer_media` says what it is."""
    answer_media: str = "application/json"
    statuses: tuple[int, ...] = (200,)
    """Of answers that are no errors; all have the same schema."""
    streams: bool = False
    """Answers as server-sent events, too, where the body says `"stream": true`."""
    asks_model: bool = False
    """A model answers: the policy, a budget or a backend may refuse."""
    query: Mapping[str, str | Parameter] = field(default_factory=dict)
    """Optional parameters of the query, each with what it means; any text is one, unless it says otherwise."""
    is_open: bool = False
    """Needs no key."""


class Parameter(NamedTuple):
    """A parameter that is no free text: what it means, and its JSON schema."""

    text: str
    schema: Mapping[str, Any]


class Route(NamedTuple):
    """A URL, what serves it, and what the document says of it."""

    method: str
    path: str
    handler: Handler
    operation: Operation
