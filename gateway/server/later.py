"""What the surfaces share whose answers can be fetched later: from an HTTP request to what is kept of it."""

from __future__ import annotations

import re
import time

from aiohttp import web

from gateway.errors import InvalidRequest
from gateway.exchange import feature_of
from gateway.inference.request import DraftWish, InferenceRequest
from gateway.jobs.asked import Asked, Who, policy_has_key
from gateway.jobs.later import Job
from gateway.server.body import read_body
from gateway.server.keys import DECISION_HEADERS, IDENTITY, POLICY, RECORD, SERVICES
from gateway.server.said import said_feature, said_labels
from gateway.server.serving import exchange_of

MOST_WAIT_S = 60.0
"""Longest that a connection is held for an answer; who wants to wait longer asks again."""
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


def prefers_async(http: web.Request) -> bool:
    """The client would rather not wait (RFC 7240)."""
    words = ",".join(http.headers.getall("prefer", ())).lower().split(",")
    return any(word.split(";")[0].strip() == "respond-async" for word in words)


def wait_of(http: web.Request) -> float:
    """How long the client wants to wait, in seconds: `?wait=20`.

    Raises:
        InvalidRequest: it is no number.
    """
    given = http.query.get("wait", "0")
    if not _SECONDS.fullmatch(given):
        raise InvalidRequest(f"'wait' is seconds, from 0 to {MOST_WAIT_S:.0f}.", param="wait")
    return min(float(given), MOST_WAIT_S)


def who_asks(http: web.Request, feature: str) -> Who:
    """Who asks, and what the headers say that holds for work done later."""
    identity, policy = http[IDENTITY], http[POLICY]
    return Who(
        tenant=identity.tenant.name,
        key=identity.key,
        key_in_policy=policy_has_key(policy, identity.tenant.name, identity.key),
        labels=tuple(sorted(identity.tenant.labels)),
        feature=feature,
        said_labels=said_labels(http),
        believed=policy.believed(http.remote, lambda name: http.headers.getall(name, ())),
    )


async def begin(
    http: web.Request, request: InferenceRequest, *, url: str, prefix: str, job: str, draft: DraftWish | None
) -> Job:
    """Have the request answered later; returns when it is admitted, and can be asked for.

    Raises:
        FirstdraftError: it is refused.
    """
    exchange = exchange_of(http, request)
    asked = Asked(
        url=url,
        id=f"{prefix}{http[RECORD].request_id.removeprefix('req-')}",
        body=await read_body(http),
        who=who_asks(http, feature_of(said_feature(http), request)),
        created=int(time.time()),
        job=job,
        draft=draft,
        cache_control=exchange.cache_control,
        traceparent=exchange.traceparent,
    )
    later = http.app[SERVICES].jobs.later
    return await later.begin(asked, request, headers=http[DECISION_HEADERS], record=http[RECORD])
