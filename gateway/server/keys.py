"""The typed keys under which one request's and the application's objects are kept."""

from __future__ import annotations

from aiohttp import web

from gateway.inference.request import Surface as SurfaceName
from gateway.policy.compiled import CompiledPolicy
from gateway.server.proxies import Proxies
from gateway.server.repeats import Repeats
from gateway.server.shortcut import Shortcut
from gateway.server.streaming import StreamReply, Streams
from gateway.services import Services
from gateway.telemetry.record import RequestRecord
from gateway.tenants.tenant import Identity

SERVICES: web.AppKey[Services] = web.AppKey("services", Services)
PROXIES: web.AppKey[Proxies] = web.AppKey("proxies", Proxies)
STREAMS: web.AppKey[Streams] = web.AppKey("streams", Streams)
SHORTCUT: web.AppKey[Shortcut] = web.AppKey("shortcut", Shortcut)
REPEATS: web.AppKey[dict[SurfaceName, Repeats]] = web.AppKey("repeats", dict[SurfaceName, Repeats])
POLICY: web.RequestKey[CompiledPolicy] = web.RequestKey("policy", CompiledPolicy)
DECISION_HEADERS: web.RequestKey[dict[str, str]] = web.RequestKey("decision headers", dict[str, str])
RECORD: web.RequestKey[RequestRecord] = web.RequestKey("record", RequestRecord)
IDENTITY: web.RequestKey[Identity] = web.RequestKey("identity", Identity)
REPLY: web.RequestKey[StreamReply] = web.RequestKey("reply", StreamReply)
STARTED: web.RequestKey[float] = web.RequestKey("started", float)
