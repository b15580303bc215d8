"""Who asks: the tenant of an API key."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.errors import Unauthenticated
from gateway.policy.compiled import CompiledPolicy
from gateway.tenants.keys import KEY_PREFIX, hash_key, presented_key
from gateway.tenants.tenant import Identity


def identify(policy: CompiledPolicy, headers: Mapping[str, str], *, loopback: bool) -> Identity:
    """Find whom the request's key stands for.

    Where the policy has a keyless tenant and the gateway listens on loopback only, a request without a key is that
    tenant's, and so is one with a placeholder that is no key of ours: SDKs insist on sending something.

    Raises:
        Unauthenticated: there is no key, or nobody has this one.
    """
    key = presented_key(headers)
    if policy.keyless_tenant is not None and loopback and not (key or "").startswith(KEY_PREFIX):
        return Identity(tenant=policy.tenants[policy.keyless_tenant].tenant)
    if key is None:
        message = "No API key was given: send it as 'authorization: Bearer KEY' or 'x-api-key: KEY'."
        raise Unauthenticated(message, code="missing_api_key")
    found = policy.keys.get(hash_key(key))
    if found is None:
        message = "This API key is not known here. Check the key, or ask the platform team for one."
        raise Unauthenticated(message)
    tenant, name = found
    return Identity(tenant=policy.tenants[tenant].tenant, key=name)
