"""The model of `issuers`: who may vouch for clients by signed tokens."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from gateway.policy import values
from gateway.policy.schema import Spec
from gateway.policy.schema_values import PlainName, Seconds, Text

LONGEST_LEEWAY_S = 300.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def _url(value: object) -> str:
    """An https URL; http on this machine alone."""
    found = values.text(value)
    try:
        parts = urlsplit(found)
        local = parts.scheme == "http" and parts.hostname in _LOOPBACK
        good = (parts.scheme == "https" or local) and bool(parts.hostname) and not parts.query and not parts.fragment
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"`{found[:80]}` is no https URL: keys that come in the clear could be anybody's")
    return found


def _audiences(value: object) -> object:
    return [value] if isinstance(value, str) else value


Url = Annotated[str, BeforeValidator(_url), WithJsonSchema({"type": "string", "format": "uri"})]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""With a public key to check them. None of the HS family: whoever can check those can make them."""


class ClaimsSpec(Spec):
    """Which claims say who a client is; `a.b` is `b` within `a`."""

    tenant: Text | None = None
    feature: Text | None = None
    labels: Text | None = None


class IssuerSpec(Spec):
    """Somebody whose signed tokens stand for tenants, beside API keys."""

    name: PlainName
    issuer: Url
    audience: Annotated[list[Text], Field(min_length=1), BeforeValidator(_audiences)]
    jwks_url: Url | None = None
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = ["RS256", "ES256"]  # noqa: RUF012 - pydantic copies it
    claims: ClaimsSpec = ClaimsSpec()
    tenant: PlainName | None = None
    tenants: dict[str, PlainName] = {}  # noqa: RUF012 - as above
    leeway: Seconds = 30.0
    keys_kept: Seconds = 86_400.0

    @model_validator(mode="after")
    def _says_who(self) -> IssuerSpec:
        if (self.tenant is None) == (self.claims.tenant is None):
            raise ValueError("say who its tokens stand for, once: a `tenant`, or the claim, `claims: {tenant: NAME}`")
        if self.tenants and self.claims.tenant is None:
            raise ValueError("`tenants` says what the values of a claim mean, and no claim is named")
        if self.leeway > LONGEST_LEEWAY_S:
            raise ValueError("`leeway` is at most 300s: so long a token is taken that has expired")
        return self
