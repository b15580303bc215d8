"""What a request's headers and its token say beside its body: feature and labels."""

from __future__ import annotations

from aiohttp import web

from gateway.errors import InvalidRequest
from gateway.server.keys import IDENTITY


def said_feature(http: web.Request) -> str:
    """The feature that asks, empty where nobody says it. A token's word counts: its client cannot say another.

    Raises:
        InvalidRequest: the header says another.
    """
    given, vouched = http.headers.get("x-firstdraft-feature", ""), http[IDENTITY].feature
    if vouched and given and given != vouched:
        message = f"This token is for the feature {vouched!r}: leave the header out, or name that one."
        raise InvalidRequest(message, param="x-firstdraft-feature")
    return vouched or given


def said_labels(http: web.Request) -> str:
    """The labels that headers name, separated by commas, and those that a token adds."""
    named = http.headers.getall("x-firstdraft-labels", ())
    vouched = http[IDENTITY].labels
    return ",".join((*named, *vouched) if vouched else named)
