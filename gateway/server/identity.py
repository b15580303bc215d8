"""Who asks: the tenant of an API key, or of a signed token."""

from __future__ import annotations

import time
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.errors import Unauthenticated
from gateway.policy.compiled import CompiledPolicy
from gateway.server.proxies import is_passed_on
from gateway.tenants.keys import KEY_PREFIX, hash_key, presented_key
from gateway.tenants.tenant import Identity
from gateway.tenants.vouching import Vouching


def identify(policy: CompiledPolicy, headers: Mapping[str, str], *, loopback: bool) -> Identity:
    """Find whom the request's key stands for.

    Where the policy has a keyless tenant and the gateway listens on loopback only, a request without a key is that
    tenant's, and so is one with a placeholder that is no key of ours: SDKs insist on sending something.

    Raises:
        Unauthenticated: there is no key, or nobody has this one.
    """
    key = presented_key(headers)
    found = None if key is None else policy.keys.get(hash_key(key))
    if found is not None:
        tenant, name, not_after = found
        if not_after is not None and time.time() >= not_after:
            raise Unauthenticated(f"This API key has expired. Ask for the tenant's current one, beside {name!r}.")
        return Identity(tenant=policy.tenants[tenant].tenant, key=name, until=not_after)
    if policy.keyless_tenant is not None and loopback and not (key or "").startswith(KEY_PREFIX):
        refuse_strangers(headers)
        return Identity(tenant=policy.tenants[policy.keyless_tenant].tenant)
    if key is None:
        message = "No API key was given: send it as 'authorization: Bearer KEY' or 'x-api-key: KEY'."
        raise Unauthenticated(message, code="missing_api_key")
    message = "This API key is not known here. Check the key, or ask the platform team for one."
    raise Unauthenticated(message)


async def identify_token(policy: CompiledPolicy, token: str, vouching: Vouching) -> Identity:
    """Find whom a signed token stands for.

    Raises:
        Unauthenticated: it is no good, or its tenant is not known here.
        IdentityUnavailable: that cannot be told now.
    """
    vouched = await vouching.check(token, policy.issuers)
    known = policy.tenants.get(vouched.tenant)
    if known is None:
        message = f"This token is not accepted: its tenant {vouched.tenant[:64]!r} is not known here."
        raise Unauthenticated(message, code="invalid_token")
    return Identity(
        tenant=known.tenant,
        key=vouched.issuer.name,
        feature=vouched.feature,
        labels=vouched.labels,
        until=vouched.until,
    )


def token_in(policy: CompiledPolicy, headers: Mapping[str, str]) -> str | None:
    """The signed token that a request brings, where policy takes any: three parts, which no key of ours has."""
    if not policy.issuers:
        return None
    key = presented_key(headers)
    return key if key is not None and key.count(".") == 2 and key.startswith("ey") else None


def refuse_strangers(headers: Mapping[str, str]) -> None:
    """Only programs on this machine may spend what needs no key.

    Neither a page of some other site, open in a browser here: its request names the page's origin, or, where it came by
    a name that was rebound to this machine, a host that is not this machine. Nor who is behind a proxy that runs here.
    """
    if is_passed_on(headers):
        message = "Without an API key only programs on this machine are served, not what a proxy passes on."
        raise Unauthenticated(message, code="missing_api_key")
    host, origin = headers.get("host", ""), headers.get("origin", "")
    for what, name in (("host", _host_of(f"//{host}")), ("origin", _host_of(origin))):
        if name is not None and not _is_here(name):
            message = f"Without an API key only programs on this machine are served; its {what} is elsewhere."
            raise Unauthenticated(message, code="missing_api_key")
    if origin == "null":
        raise Unauthenticated("Without an API key, pages without an origin are not served.", code="missing_api_key")


def _host_of(url: str) -> str | None:
    """The host of a URL; what is no URL (a bracket that is not closed) is its own, and so elsewhere."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return url


def _is_here(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
