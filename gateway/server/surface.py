"""A public schema as the server sees it: how a body is read, and how answers and errors are written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from gateway.inference.request import InferenceRequest
from gateway.inference.request import Surface as SurfaceName
from gateway.pipeline import Exchange
from gateway.wire.writers import AnswerWriter, MakeAnswer, MakeStream, StreamWriter

Finish = Callable[[web.Request, Exchange, StreamWriter | AnswerWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """One public schema."""

    name: SurfaceName
    decode: Callable[[bytes], InferenceRequest]
    stream: MakeStream
    answer: MakeAnswer
    id_prefix: str
    """Of the ids of answers that the gateway makes."""
    finish: Finish | None = None
    """What is to be done with a whole answer before its end is told to the client."""
